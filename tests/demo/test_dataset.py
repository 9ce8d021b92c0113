"""The emoji dataset, without the network."""

import json
from pathlib import Path

import pytest
from PIL import Image

from demo import dataset


def write_names(folder: Path, table: dict) -> Path:
    (folder / "data-by-emoji.json").write_text(json.dumps(table), encoding="utf-8")
    return folder


def test_captions_are_named_by_code_points_and_flags_are_left_out(tmp_path: Path):
    heart, flag = chr(0x2764) + chr(0xFE0F), chr(0x1F3C1)
    names = write_names(
        tmp_path, {heart: {"name": "red heart", "group": "Symbols"}, flag: {"name": "chequered", "group": "Flags"}}
    )
    assert dataset.captions(names) == {"2764-fe0f": "red heart"}


def test_captions_are_ascii(tmp_path: Path):
    name = "woman" + chr(0x2019) + "s pi" + chr(0xF1) + "ata"
    names = write_names(tmp_path, {"x": {"name": name, "group": "Objects"}})
    assert list(dataset.captions(names).values()) == ["woman's pinata"]


def test_pictures_are_laid_on_white_at_their_size(tmp_path: Path):
    picture = Image.new("RGBA", (256, 256), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (64, 64, 192, 192))
    picture.save(tmp_path / "x.webp", lossless=True)
    made = dataset.on_white(tmp_path / "x.webp")
    assert made.size == (dataset.SIZE, dataset.SIZE)
    assert made.getpixel((0, 0)) == (255, 255, 255)
    assert made.getpixel((64, 64)) == (0, 0, 255)


def test_without_npm_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"npm is needed.*install Node"):
        dataset.fetch_package(dataset.NAMES, tmp_path / "names")
