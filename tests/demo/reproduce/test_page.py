"""Sections, and the page that they make."""

import pytest

from demo.reproduce import page
from demo.reproduce.claims import AGREES, DIFFERS, Claim
from demo.reproduce.page import Section
from demo.reproduce.trainings import ROOT


@pytest.fixture
def sections():
    return [
        Section("Table 1", "Some text.\n\n![x](images/x.png)", [Claim("section 5", "TCD is better", "1 to 2", AGREES)]),
        Section(
            'Figure "2"',
            "More of it: 50 %",
            [Claim("figure 2", "E falls", "3", DIFFERS), Claim("figure 3", "E|s| < 1", "a | b", AGREES)],
        ),
    ]


def cells(line):
    """Of a line of a table, as a reader of Markdown divides it."""
    return [cell.strip() for cell in line.replace(r"\|", "\0").strip("|").split("|")]


def test_sections_are_read_as_they_were_kept(tmp_path, sections):
    path, first, second = tmp_path / "docs" / "results.json", *sections
    for kept in ({"table1": first}, {"table1": second, "gamma": first}):  # in place of what was there
        page.keep(kept, path)
        assert page.kept(path) == kept
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_where_nothing_was_kept_there_are_no_sections(tmp_path):
    assert page.kept(tmp_path / "gone.json") == {}


@pytest.mark.host
def test_the_page_that_ships_is_made_of_the_sections_that_ship(tmp_path):
    from demo.reproduce.experiments import EXPERIMENTS

    shipped = ROOT / "docs" / "results.md"
    sections, text = page.kept(shipped.with_suffix(".json")), shipped.read_text(encoding="utf-8")
    introduction, _ = text.split("\n\n## Every claim\n")
    page.write(tmp_path / "again.md", introduction, [sections[name] for name in EXPERIMENTS if name in sections])
    assert (tmp_path / "again.md").read_text(encoding="utf-8") == text


def test_the_page_has_every_claim_in_one_table_and_then_the_sections_in_order(tmp_path, sections):
    path = tmp_path / "docs" / "results.md"
    page.write(path, "# Both papers", sections)
    text = path.read_text(encoding="utf-8")
    order = ["# Both papers\n", "## Every claim\n", "TCD is better", "E falls", "## Table 1\n", '## Figure "2"\n']
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    for section in sections:
        assert f"## {section.title}\n\n{section.text}\n" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [cells(line)[3] for line in table] == ["verdict", "---", "**agrees**", "**does not**", "**agrees**"]


def test_a_bar_in_a_claim_does_not_divide_its_cell(sections):
    *_, last = page.claims_table(sections[1].claims).splitlines()
    assert cells(last) == ["figure 3", "E\0s\0 < 1", "a \0 b", "**agrees**"]
    assert [len(cells(line)) for line in page.table(["a|b", "c"], [["|", "1"]]).splitlines()] == [2, 2, 2]


def test_a_table_has_its_numbers_to_the_right():
    made = page.table(["method", "2 steps", "4 steps"], [["TCD", "0.5", "0.25"]])
    assert list(map(cells, made.splitlines())) == [
        ["method", "2 steps", "4 steps"],
        ["---", "---:", "---:"],
        ["TCD", "0.5", "0.25"],
    ]
