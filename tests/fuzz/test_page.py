"""The page on bad input names every input that there is, and so cannot fall behind the code."""

import re

import pytest
from fuzz.page import PAGE, inputs_of, with_tables
from host_process import ROOT, pack

from training.evaluate.options import EvaluateOptions
from training.options import FIELDS, Options

pytestmark = pytest.mark.host


def section(name: str) -> str:
    page = PAGE.read_text(encoding="utf-8")
    return page.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_tables_are_those_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: PYTHONPATH=.:tests python -m fuzz.page"


def test_every_text_input_of_a_node_has_its_rule():
    rules = section("Bad input").split("<!-- /nodes -->")[1]
    for node in pack().values():
        for inputs in inputs_of(node):
            texts = [name for name, (kind, _) in inputs.items() if kind == "STRING"]
            assert [name for name in texts if f"`{name}`" not in rules] == []


def test_every_option_that_no_table_limits_has_its_rule():
    """The numbers, lists and switches are in the tables of docs/training.md, and of this page."""
    rules = section("Bad input")
    for options in (Options, EvaluateOptions):
        for name in options.__dataclass_fields__:
            field = options.__dataclass_fields__[name]
            told = field.metadata
            if told["least"] is None and told["choices"] is None and not isinstance(field.default, bool):
                assert f"`{name}`" in rules


def test_every_option_of_the_trainer_is_in_its_table():
    table = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert [name for name in FIELDS if not re.search(rf"\| `{name}` \|", table)] == []
