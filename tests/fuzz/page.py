"""The tables of docs/reliability.md that the code fills: PYTHONPATH=.:tests python -m fuzz.page"""

from dataclasses import fields
from typing import Any

from host_process import ROOT, pack

from training.evaluate.options import EvaluateOptions
from training.options import FIELDS
from training.options.__main__ import allowed, with_table

PAGE = ROOT / "docs" / "reliability.md"
# What a link or a widget without limits takes, in words.
KINDS = {"BOOLEAN": "true or false", "STRING": "text, see below"}


def range_of(kind: str, told: dict[str, Any]) -> str:
    """What a node's input takes."""
    if kind == "INT":
        return f"a whole number from {told['min']} to {told['max']}"
    if kind == "FLOAT":
        return f"a number from {told['min']:g} to {told['max']:g}"
    if kind == "COMBO":
        return ", ".join(f"`{name}`" for name in told["options"])
    return KINDS.get(kind, f"a link from {kind}")


def inputs_of(node: Any) -> list[dict[str, tuple[str, dict[str, Any]]]]:
    """Name -> (kind, limits) of what a node asks for, first what it must have."""
    return [node.INPUT_TYPES().get(category, {}) for category in ("required", "optional")]


def nodes() -> str:
    """A row for every input of every node; those of one name and range share it."""
    rows: dict[tuple[str, str], list[str]] = {}
    for node, found in pack().items():
        for inputs in inputs_of(found):
            for name, (kind, told) in inputs.items():
                words = "a `.safetensors` file of the list" if name == "lora" else range_of(kind, told)
                rows.setdefault((name, words), []).append(node.removeprefix("TCD_"))
    lines = [f"| `{name}` | {', '.join(found)} | {words} |" for (name, words), found in rows.items()]
    return "\n".join(["| input | nodes, after TCD_ | allowed |", "| --- | --- | --- |", *lines, ""])


def evaluator() -> str:
    """A row for every option of the evaluator that the trainer has not."""
    own = [f for f in fields(EvaluateOptions) if f.name not in FIELDS]
    lines = [f"| `{f.name}` | {f.metadata['help'].replace('|', ',')} | {allowed(f)} |" for f in own]
    return "\n".join(["| option | what it is | values |", "| --- | --- | --- |", *lines, ""]).replace("|  |", "| |")


def with_tables(page: str) -> str:
    page = with_table(page, nodes(), "<!-- nodes -->", "<!-- /nodes -->")
    return with_table(page, evaluator(), "<!-- evaluator -->", "<!-- /evaluator -->")


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
