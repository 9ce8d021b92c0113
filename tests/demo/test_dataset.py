"""The emoji dataset, without the network."""

import json
from pathlib import Path

import numpy as np
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
    name, made = next(dataset.views("x", tmp_path / "x.webp"))
    assert name == "x"
    assert made.size == (dataset.SIZE, dataset.SIZE)
    assert made.getpixel((0, 0)) == (255, 255, 255)
    assert made.getpixel((64, 64)) == (0, 0, 255)


def square(folder: Path) -> Path:
    picture = Image.new("RGBA", (256, 256), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (48, 48, 208, 208))
    picture.save(folder / "x.webp", lossless=True)
    return folder / "x.webp"


def test_views_differ_and_are_the_same_every_time(tmp_path: Path):
    first, again = (dict(dataset.views("x", square(tmp_path))) for _ in range(2))
    assert list(first) == ["x", *(f"x_{i}" for i in range(1, dataset.VIEWS))]
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert len({view.tobytes() for view in first.values()}) == dataset.VIEWS
    other = dict(dataset.views("y", square(tmp_path)))
    assert other["y_1"].tobytes() != first["x_1"].tobytes()


def test_no_view_moves_the_picture_out_of_sight(tmp_path: Path):
    """The square keeps at least its area shrunk by the most, and the corners stay white."""
    for seed in range(50):
        for view in dict(dataset.views(str(seed), square(tmp_path))).values():
            blue = int((np.asarray(view)[..., 0] < 128).sum())
            assert 0.95 * 80**2 * 0.88**2 < blue < 1.05 * 80**2
            assert view.getpixel((1, 1)) == (255, 255, 255)


def test_without_npm_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"npm is needed.*install Node"):
        dataset.fetch_package(dataset.NAMES, tmp_path / "names")
