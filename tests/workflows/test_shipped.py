"""The shipped files are what the script makes, and say what they need."""

import json
import re

import pytest
from PIL import Image

from demo import checkpoints, workflows
from demo.workflows import files, tiny

pytestmark = pytest.mark.host

NAMES = sorted(workflows.WORKFLOWS)
MADE = {path.rsplit("/", 1)[1]: path.split("/", 1)[0] for paths in checkpoints.FILES.values() for path in paths}


def shipped(name: str) -> dict:
    return json.loads((workflows.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_the_files_are_what_the_script_makes(kinds):
    wanted = workflows.texts(kinds)
    found = {path.relative_to(workflows.FOLDER) for path in workflows.FOLDER.rglob("*.json")}
    assert found == set(wanted)
    for path, text in wanted.items():
        assert (workflows.FOLDER / path).read_text(encoding="utf-8") == text, "run python -m demo.workflows"


@pytest.mark.parametrize("name", NAMES)
def test_the_note_names_every_file_and_its_place(name):
    (note,) = (node for node in shipped(name)["nodes"] if node["type"] == "MarkdownNote")
    (text,) = note["widgets_values"]
    values = [value for node in shipped(name)["nodes"] if node is not note for value in node["widgets_values"]]
    needed = {value for value in values if isinstance(value, str) and value.endswith(".safetensors")}
    for file in needed - {tiny.LORA, tiny.LCM, tiny.SPLUS}:
        assert f"**models/{files.FILES[file].folder}/{file}**" in text
    assert (files.EMBEDDED in text) == name.startswith("tiny_")
    assert "### Try" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_thumbnail_is_small(name):
    path = workflows.FOLDER / f"{name}.jpg"
    assert path.stat().st_size < 60_000
    with Image.open(path) as image:
        assert image.width == 512


def test_every_file_that_workflows_name_can_be_made_of_random_weights():
    assert set(files.FILES) == set(MADE)
    assert all(files.FILES[name].folder == folder for name, folder in MADE.items())


def test_a_file_without_a_source_says_why():
    for name, file in files.FILES.items():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", file.where) or file.remark, name
