"""The benchmarks' page: each one's output has a place in it. Their figures are no test's business."""

import pytest
from bench import __main__ as program

PLACE = "<!-- one -->\nold\n<!-- /one -->\n"


def test_the_page_has_a_place_for_every_benchmark():
    page = program.PAGE.read_text(encoding="utf-8")
    for name in program.BENCHMARKS:
        assert "\nfound\n" in program.put(page, name, "found")


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with the places of two benchmarks, of which one is a script beside it."""
    path = tmp_path / "page.md"
    path.write_text(f"{PLACE}<!-- two -->\nkept\n<!-- /two -->\n", encoding="utf-8")
    monkeypatch.setattr(program, "PAGE", path)
    monkeypatch.setattr(program, "BENCHMARKS", {"one": [str(tmp_path / "one.py")]})
    return path


def test_what_a_benchmark_prints_replaces_its_own_table_alone(page, capfd):
    page.with_name("one.py").write_text("print('| 0.5 |')\n", encoding="utf-8")
    assert program.main([]) == 0
    text = page.read_text(encoding="utf-8")
    assert "| 0.5 |" in capfd.readouterr().out
    assert text.startswith(
        f"<!-- one -->\n`python3 dev.py bench one` on {program.machine()}:\n\n| 0.5 |\n<!-- /one -->\n"
    )
    assert "old" not in text
    assert text.endswith("<!-- two -->\nkept\n<!-- /two -->\n")


def test_a_benchmark_that_fails_leaves_the_page_as_it_was(page, capfd):
    page.with_name("one.py").write_text("print('| 0.5 |')\nraise SystemExit(3)\n", encoding="utf-8")
    before = page.read_text(encoding="utf-8")
    assert program.main(["one"]) == 1
    assert "one: ended with code 3" in capfd.readouterr().err
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("page", ["", "<!-- one -->\n\n<!-- /one -->\n<!-- one -->\n\n<!-- /one -->"])
def test_a_page_without_the_place_or_with_two_is_refused(page):
    with pytest.raises(ValueError, match="<!-- one -->"):
        program.put(page, "one", "found")


def test_an_unknown_benchmark_is_refused_with_the_names_of_all(capsys):
    with pytest.raises(SystemExit):
        program.main(["speed"])
    said = capsys.readouterr().err
    assert "got speed" in said
    assert all(name in said for name in program.BENCHMARKS)


def test_without_a_gpu_what_needs_one_is_left_out_and_said(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(program, "BENCHMARKS", {"sdxl": ["gone.py"]})
    monkeypatch.setattr(program.torch.cuda, "is_available", lambda: False)
    assert program.main([]) == 0
    assert "sdxl: left out, it is measured on a GPU" in capfd.readouterr().out
