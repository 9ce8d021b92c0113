"""What others build on is as it was released: nodes, the package `tcd`, and the flags of trainer and evaluator.

It is written down in tests/public_surface.json. After a change that is meant:
UPDATE_SURFACE=1 python3 dev.py test tests/test_public_surface.py
and CONTRIBUTING.md says which version the change asks for.
"""

import difflib
import inspect
import json
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from host_process import pack

import tcd
from training.evaluate.options import EvaluateOptions
from training.options import Options

FILE = Path(__file__).with_suffix("").with_name("public_surface.json")
VALUES = ("default", "min", "max", "step", "options", "multiline")  # of an input, as far as its kind has them
CHANGED = """{part} is not what tests/public_surface.json says:
{difference}
If this is meant, semantic versioning asks for a new MAJOR version (before 1.0.0: MINOR) where something is gone, is
renamed or means something else, so that workflows and scripts break; for a new MINOR version where it was only added.
Write it into CHANGELOG.md, and run: UPDATE_SURFACE=1 python3 dev.py test tests/test_public_surface.py"""


def listed(value: Any) -> Any:
    """A default as JSON has it."""
    return list(value) if isinstance(value, (list, tuple)) else value


def input_of(one: Any) -> dict[str, Any]:
    """Type, whether it is needed, and what values it takes; the choice of LoRA files is each machine's own."""
    said = {name: listed(getattr(one, name)) for name in VALUES if getattr(one, name, None) is not None}
    if one.id == "lora":
        del said["options"]
    return {"type": one.get_io_type(), "optional": bool(one.optional)} | said


def node_of(node: Any) -> dict[str, Any]:
    schema = node.define_schema()
    return {
        "inputs": {one.id: input_of(one) for one in schema.inputs},
        "outputs": [f"{one.get_io_type()} {one.display_name or ''}".strip() for one in schema.outputs],
        "is_output_node": schema.is_output_node,
    }


def nodes() -> dict[str, Any]:
    """By id, each with its inputs in order: saved workflows keep values by their place alone."""
    return {name: node_of(node) for name, node in pack().items()}


def signature(found: Callable) -> str:
    """Names, order and defaults; without types, which each Python writes in its own way."""
    said = inspect.signature(found)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in said.parameters.values()]
    text = str(said.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function (\S+) at \w+>", r"\1", text)


def member(found: type, name: str) -> Any:
    return "property" if isinstance(inspect.getattr_static(found, name), property) else described(getattr(found, name))


def members(found: type) -> dict[str, Any]:
    """Public ones of a class, with those that it inherits from our own."""
    ours = {name for base in found.__mro__ if base.__module__.startswith("tcd") for name in vars(base)}
    return {name: member(found, name) for name in sorted(ours) if not name.startswith("_")}


def described(found: Any) -> Any:
    """A signature; of a class, its members too; of a module, its exports; of a table, its names."""
    if isinstance(found, ModuleType):
        exported = getattr(found, "__all__", None) or [name for name in vars(found) if is_own(found, name)]
        return {name: described(getattr(found, name)) for name in sorted(exported)}
    if isinstance(found, type) and found.__module__.startswith("tcd"):
        return {"": signature(found), **members(found)}
    if isinstance(found, dict):
        return sorted(found)
    return signature(found) if inspect.isroutine(found) else "value"


def is_own(module: ModuleType, name: str) -> bool:
    """Whether a public function or class is the module's, not one that it imports."""
    return not name.startswith("_") and getattr(getattr(module, name), "__module__", None) == module.__name__


def package() -> dict[str, Any]:
    return {name: described(getattr(tcd, name)) for name in tcd.__all__}


def flags(options: type) -> dict[str, Any]:
    return {field.name: listed(field.default) for field in sorted(fields(options), key=lambda field: field.name)}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "nodes": nodes,
    "tcd": package,
    "training.train": lambda: flags(Options),
    "training.evaluate": lambda: flags(EvaluateOptions),
}


def written(value: Any) -> list[str]:
    return json.dumps(value, indent=1).splitlines()


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.host) if part == "nodes" else part for part in PARTS]
)
def test_the_public_surface_is_as_it_was_released(part):
    found, known = PARTS[part](), json.loads(FILE.read_text(encoding="utf-8"))
    if os.environ.get("UPDATE_SURFACE"):
        known[part] = json.loads(json.dumps(found))
        FILE.write_text("\n".join(written(known)) + "\n", encoding="utf-8", newline="\n")
    difference = difflib.unified_diff(written(known.get(part)), written(found), "released", "now", lineterm="", n=2)
    if difference := "\n".join(difference):
        pytest.fail(CHANGED.format(part=part, difference=difference), pytrace=False)


def test_a_change_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(PARTS, "tcd", lambda: package() | {"sample": "(predict)"})
    monkeypatch.delenv("UPDATE_SURFACE", raising=False)
    with pytest.raises(
        pytest.fail.Exception, match=r'(?s)tcd is not .*\+ "sample": "\(predict\)".*MINOR.*CHANGELOG\.md'
    ):
        test_the_public_surface_is_as_it_was_released("tcd")
