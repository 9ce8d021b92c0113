"""Contact sheets of the tiny model."""

import numpy as np
import torch

from demo import sheets


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 128, 128, 3, generator=torch.Generator().manual_seed(count))


def at(sheet, x, y):
    """The picture whose corner is there, as numbers in [0, 1]."""
    return torch.from_numpy(np.asarray(sheet.crop((x, y, x + 128, y + 128))).astype(np.float32) / 255)


def near(found, wanted):
    return (found - wanted).abs().max() <= 0.5 / 255 + 1e-6


def test_rows_have_room_for_labels_and_captions_and_show_every_picture():
    made = {"one": pictures(3), "two": 1 - pictures(3)}
    sheet = sheets.rows(made, ["a", "b", "c"])
    assert sheet.size == (sheets.LABEL + 3 * 128, sheets.CAPTION + 2 * 128)
    for j, row in enumerate(made.values()):
        for i, picture in enumerate(row):
            assert near(at(sheet, sheets.LABEL + 128 * i, sheets.CAPTION + 128 * j), picture)


def test_labels_and_captions_are_written_and_long_ones_stay_in_their_room():
    few, many = (sheets.rows({words: pictures(1)}, [words]) for words in ("", "word " * 100))
    label, caption = (0, sheets.CAPTION, sheets.LABEL, sheets.CAPTION + 128), (sheets.LABEL, 0, 278, sheets.CAPTION)
    for room in (label, caption):
        assert (np.asarray(few.crop(room)) == 255).all()
        assert (np.asarray(many.crop(room)) < 255).any()
    assert near(at(many, sheets.LABEL, sheets.CAPTION), pictures(1)[0])
