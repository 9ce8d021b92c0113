"""What there is, known without a model: all of the bad data is named at once, before any work."""

import importlib
import logging
import threading
import time

import pytest
from dataset_files import add, opts_of

from training.data import survey

surveys = importlib.import_module("training.data.survey")  # of whose name the package has a function


def test_pictures_are_counted_by_folder_and_bucket(tmp_path):
    add(tmp_path / "data" / "10_cat", "a.png", size=(512, 512))
    add(tmp_path / "data" / "10_cat", "b.png", size=(600, 590))
    add(tmp_path / "data" / "2_dog", "c.png", size=(400, 800))
    found = survey(opts_of(tmp_path, resolution="512", enable_bucket=True))
    assert [(s.caption, s.repeats, s.size, s.fit.bucket) for s in found.samples] == [
        ("a cat", 10, (512, 512), (512, 512)),
        ("a cat", 10, (600, 590), (512, 512)),
        ("a cat", 2, (400, 800), (320, 704)),
    ]
    lines = "\n".join(found.lines())
    assert lines.startswith("data: 3 samples, 22 in an epoch\n")
    assert "10_cat: 2 x 10" in lines
    assert "2_dog: 1 x 2" in lines
    assert "bucket 512 x 512: 2" in lines


def spoil(folder):
    """One good picture and one of each kind of bad ones."""
    add(folder, "good.png")
    add(folder, "uncaptioned.png", None)
    add(folder, "empty.png", "")
    add(folder, "latin.png").with_suffix(".txt").write_bytes(b"caf\xe9")
    cut = add(folder, "truncated.png", size=(256, 256))
    cut.write_bytes(cut.read_bytes()[:-60])
    add(folder, "broken.png").write_bytes(b"broken")


BAD = (
    r"broken\.png is not a readable picture",
    r"empty\.png has an empty caption",
    r"latin\.png has a caption that cannot be read as UTF-8",
    r"truncated\.png is not a readable picture",
    r"uncaptioned\.png has no caption",
)


def test_all_bad_data_is_named_in_one_error(tmp_path):
    spoil(tmp_path / "data" / "1_x")
    with pytest.raises(ValueError, match=r"(.|\n)*".join(["^5 of 6 cannot be used:", *BAD])):
        survey(opts_of(tmp_path))


def test_bad_data_may_be_skipped_with_a_warning(tmp_path, caplog):
    spoil(tmp_path / "data" / "1_x")
    with caplog.at_level(logging.WARNING):
        found = survey(opts_of(tmp_path, bad_data="skip"))
    assert [sample.path.name for sample in found.samples if sample.path] == ["good.png"]
    assert caplog.messages[0].startswith("5 of 6 cannot be used:\n")
    assert "  left out: 5" in found.lines()


def test_a_long_list_is_cut(tmp_path):
    for i in range(23):
        add(tmp_path / "data" / "1_x", f"{i:02}.png", None, size=(1, 1))
    with pytest.raises(ValueError, match=r"^23 of 23 cannot be used:\n(.*is missing\n){20}  \.\.\. and 3 more"):
        survey(opts_of(tmp_path))


def test_only_bad_data_is_an_error_even_if_skipped(tmp_path):
    add(tmp_path / "data" / "1_x", "a.png", None)
    with pytest.raises(ValueError, match="1 of 1 cannot be used"):
        survey(opts_of(tmp_path, bad_data="skip"))


def test_a_picture_that_is_smaller_than_a_bucket_is_bad_data(tmp_path):
    add(tmp_path / "data" / "1_x", "a.png", size=(100, 40))
    opts = opts_of(tmp_path, enable_bucket=True, bucket_no_upscale=True)
    with pytest.raises(
        ValueError, match=r"a\.png has 100 x 40 pixels: too few, or too narrow, for bucket_reso_steps 64"
    ):
        survey(opts)


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_threads_read_as_are_asked_for(tmp_path, monkeypatch, threads):
    for i in range(6):
        add(tmp_path / "data" / "1_all", f"{i}.png")
    seen, examine = set(), surveys.examine

    def slow(job):
        seen.add(threading.get_ident())
        time.sleep(0.02)  # so that no thread does all of it
        return examine(job)

    monkeypatch.setattr(surveys, "examine", slow)
    survey(opts_of(tmp_path, max_data_loader_n_workers=threads))
    assert len(seen) == threads
