"""The arrows between the folders, what pack checkers fail on, and whether docs/architecture.md is true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("demo", "nodes", "tcd", "tests", "training")
FILES = sorted([*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))])
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths"}  # and nodes, when absolute

# Folder -> what its files must not import.
FORBIDDEN = {
    "tcd": COMFYUI | {"demo", "diffusers", "nodes", "training"},
    "nodes": {"diffusers", "training"},
    "training": {"demo", "diffusers", "nodes"},
    "demo": {"diffusers", "nodes"},
}
KNOWS_COMFYUI = ROOT / "training" / "host"

ASSIGN = ast.Assign | ast.AnnAssign
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
IN_DRAWING = re.findall(r'"([\w, ]+)<br/>([\w/]+\.py)"', PAGE)
IN_TEXT = re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", PAGE)


def package(file: Path, level: int) -> list[str]:
    """The folders, from the root, that a relative import with `level` dots starts from."""
    folders = file.relative_to(ROOT).parts[:-1]
    return list(folders[: len(folders) - (level - 1)])


def imports(file: Path) -> set[str]:
    """First names of all modules that a file imports, inside functions too; relative ones as seen from the root."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = [*package(file, node.level), *(node.module or "").split(".")] if node.level else [node.module or ""]
            names = [name for name in start if name]
            found |= {names[0].split(".")[0]} if names else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_its_folder_may(file):
    folder = file.relative_to(ROOT).parts[0]
    forbidden = FORBIDDEN.get(folder, set())
    if folder == "training" and KNOWS_COMFYUI not in file.parents:
        forbidden = forbidden | COMFYUI
    used = imports(file) - ({folder} if folder == "nodes" else set())
    assert not used & forbidden


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_python_source_is_ascii(file):
    assert file.read_text(encoding="utf-8").isascii()


def test_relative_imports_are_resolved():
    assert package(ROOT / "nodes" / "x.py", 1) == ["nodes"]
    assert package(ROOT / "nodes" / "x.py", 2) == []
    assert "tcd" in imports(ROOT / "nodes" / "adapt.py")


def defined(file: Path) -> set[str]:
    """Names of a file's functions, classes and tables."""
    tree = ast.parse(file.read_text(encoding="utf-8")).body
    targets = [one.targets[0] if isinstance(one, ast.Assign) else one.target for one in tree if isinstance(one, ASSIGN)]
    tables = {target.id for target in targets if isinstance(target, ast.Name)}
    return tables | {one.name for one in tree if isinstance(one, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize(("names", "file"), [*IN_DRAWING, *IN_TEXT], ids=lambda word: word)
def test_the_page_on_architecture_names_what_is_there(names, file):
    assert set(names.split(", ")) <= defined(ROOT / file)


def test_the_page_on_architecture_names_every_part():
    assert len(IN_DRAWING) > 15
    assert len(IN_TEXT) > 8
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:nodes|tcd|training|web|tests)/[\w/.]*)`", PAGE))
