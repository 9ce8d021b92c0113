"""Sections, and the page that they make."""

import pytest

from demo.reproduce import page
from demo.reproduce.claims import AGREES, DIFFERS, Claim
from demo.reproduce.page import Section


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


def test_a_section_is_read_as_it_was_kept(tmp_path, sections):
    path = tmp_path / "sections" / "table1.json"
    for section in sections:  # the second in place of the first
        page.keep(section, path)
        assert page.kept(path) == section
    assert [file.name for file in path.parent.iterdir()] == ["table1.json"]


def test_a_section_that_was_never_kept_is_none(tmp_path):
    assert page.kept(tmp_path / "gone.json") is None


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
