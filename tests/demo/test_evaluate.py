"""The measures and contact sheets behind docs/tiny.md."""

import numpy as np
import pytest
import torch
from PIL import Image

import tcd
from demo import evaluate, features, sheets


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 128, 128, 3, generator=torch.Generator().manual_seed(count))


def test_every_picture_finds_itself():
    real = pictures(12)
    assert evaluate.retrieval(real, real, torch.arange(12), torch.arange(12)) == 1.0


def test_a_picture_of_another_emoji_counts_only_among_the_nearest():
    real = pictures(12)
    wrong = torch.arange(12).roll(1)
    assert evaluate.retrieval(real, real, torch.arange(12), wrong, among=1) == 0.0
    assert evaluate.retrieval(real, real, torch.arange(12), wrong, among=12) == 1.0


def test_an_emoji_is_as_near_as_its_nearest_view_and_counts_once():
    real = pictures(4)
    views, emoji = torch.cat([real, 1 - real]), torch.tensor([0, 1, 2, 3, 3, 0, 1, 2])
    assert evaluate.retrieval(1 - real, views, emoji, torch.tensor([3, 0, 1, 2]), among=1) == 1.0


def test_prompts_are_spread_evenly_from_first_to_last():
    assert evaluate.evenly(1599, 3).tolist() == [0, 799, 1598]
    assert evaluate.evenly(5, 5).tolist() == [0, 1, 2, 3, 4]


def test_a_guided_step_counts_as_two_evaluations():
    assert {column.name: column.evaluations for column in evaluate.COLUMNS}["guided DDIM, 2 steps"] == 4


def test_the_extractor_tells_different_pictures_apart_and_not_equal_ones():
    tower = features.load()
    a, b = tower(pictures(2).permute(0, 3, 1, 2))
    assert a.shape == (features.WIDTH,)
    assert torch.equal(a, tower(pictures(2).permute(0, 3, 1, 2))[0])
    assert (a - b).abs().max() > 0


@pytest.mark.parametrize(("count", "size"), [(8, (1024, 158)), (9, (1024, 316))])
def test_galleries_have_eight_pictures_a_row(count: int, size: tuple[int, int]):
    assert sheets.gallery(pictures(count), ["a"] * count).size == size


def test_rows_have_room_for_labels_and_captions():
    sheet = sheets.rows({"one": pictures(3), "two": pictures(3)}, ["a", "b", "c"])
    assert sheet.size == (sheets.LABEL + 3 * 128, sheets.CAPTION + 2 * 128)


def test_the_extractor_sees_blur_and_the_more_the_more():
    sheet = np.asarray(Image.open(evaluate.DOCS / "images" / "tiny_teacher.png").convert("RGB"))
    rows = [sheet[y : y + 128] for y in range(0, sheet.shape[0], 128 + sheets.CAPTION)]
    tiles = np.stack([row[:, x : x + 128] for row in rows for x in range(0, 1024, 128)])
    real, tower = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255, features.load()
    mild, strong = (
        tcd.metrics.frechet_distance(tower(features.blur(real, sigma)), tower(real)) for sigma in (1.0, 2.0)
    )
    assert 0.1 < mild < strong / 3
