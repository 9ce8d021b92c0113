"""Where pictures come from: kohya's folders, and which of them are refused by name."""

import pytest
from dataset_files import add, opts_of

from training.data import sources


def test_folders_are_found_in_order_with_their_repeats(tmp_path):
    for name in ("2_dog", "10_cat", ".hidden"):
        add(tmp_path / "data" / name, "a.png")
    (tmp_path / "data" / "notes.txt").touch()
    found = sources.of_folders(opts_of(tmp_path))
    assert [(subset.folder.name, subset.repeats) for subset in found] == [("10_cat", 10), ("2_dog", 2)]


def test_pictures_are_found_in_order_whatever_the_case_of_their_ending(tmp_path):
    for name in ("b.png", "a.JPG", "c.webp", "._a.jpg.png"):
        add(tmp_path / "data" / "1_x", name)
    (subset,) = sources.of_folders(opts_of(tmp_path))
    assert [path.name for path in subset.pictures()] == ["a.JPG", "b.png", "c.webp"]


@pytest.mark.parametrize("name", ["cat", "x_cat", "-1_cat", "10", "0_cat"])
def test_a_folder_without_repeats_is_named(tmp_path, name):
    add(tmp_path / "data" / name, "a.png")
    with pytest.raises(ValueError, match=rf"{name}: a picture folder is named \{{repeats\}}_\{{name\}}"):
        sources.of_folders(opts_of(tmp_path))


def test_no_folders_at_all_are_an_error(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"no folder named .*, such as 10_cat, in .*data"):
        sources.of_folders(opts_of(tmp_path))


def test_a_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "data" / "1_empty").mkdir(parents=True)
    (subset,) = sources.of_folders(opts_of(tmp_path))
    with pytest.raises(ValueError, match=r"no pictures \(\.bmp, .*\) in .*1_empty"):
        subset.pictures()
