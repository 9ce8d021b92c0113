"""The extractor behind the Frechet distances of the tiny model, and its words."""

import numpy as np
import pytest
import torch
from host_process import ROOT
from PIL import Image

import tcd
from demo import features

SHEET = ROOT / "docs" / "images" / "training_sheet.png"
CAPTIONS = ["red heart", "pizza", "cat face", "rocket"]  # of its rows
COLUMNS = 5


@pytest.fixture(scope="module")
def emoji():
    """The pictures of the sheet [20, 128, 128, 3], row by row."""
    with Image.open(SHEET) as sheet:
        corners = [(14 + 204 * i, 70 + 248 * j) for j in range(len(CAPTIONS)) for i in range(COLUMNS)]
        tiles = [sheet.convert("RGB").crop((x, y, x + 188, y + 188)).resize((128, 128)) for x, y in corners]
    return torch.stack([torch.from_numpy(np.asarray(tile).astype(np.float32) / 255) for tile in tiles])


@pytest.fixture(scope="module")
def own():
    """Their captions."""
    return [caption for caption in CAPTIONS for _ in range(COLUMNS)]


# --- The picture tower -----------------------------------------------------------------------------------


def test_the_extractor_tells_different_pictures_apart_and_not_equal_ones(emoji):
    found = features.describe(emoji)
    assert found.shape == (len(emoji), features.WIDTH)
    assert torch.equal(found, features.describe(emoji))
    assert torch.pdist(found).min() > 0


def test_pictures_of_one_emoji_are_nearer_than_those_of_others(emoji):
    found = features.describe(emoji)
    distance = torch.cdist(found, found)
    same = torch.block_diag(*[torch.ones(COLUMNS, COLUMNS)] * len(CAPTIONS)).bool()
    assert distance[same].mean() < distance[~same].mean() / 2


def test_the_extractor_sees_blur_and_the_more_the_more(emoji):
    real, (tower, _) = emoji.permute(0, 3, 1, 2), features.load()
    mild, strong = (
        tcd.metrics.frechet_distance(tower(features.blur(real, sigma)), tower(real)) for sigma in (1.0, 2.0)
    )
    assert 0.1 < mild < strong / 3


# --- The words -------------------------------------------------------------------------------------------


def test_a_caption_is_a_bag_of_its_known_words():
    tower = features.WordTower(["heart", "red"])
    captions = ["Red heart, red!", "a heart", "whale"]
    assert tower.bags(captions).tolist() == [[1, 1], [1, 0], [0, 0]]
    assert tower(captions).shape == (3, features.WIDTH)
    assert torch.equal(tower(["heart red"]), tower(["red heart"]))
    assert not tower(["whale"]).any()


def test_pictures_find_their_captions_among_others(emoji, own):
    others = ["green heart", "fox", "dog face", "airplane", "cheese wedge", "umbrella"]
    described = features.describe(emoji)
    assert features.retrieval(described, own, CAPTIONS + others) == 1
    assert features.retrieval(described, own[COLUMNS:] + own[:COLUMNS], CAPTIONS + others) == 0


def test_the_share_of_captions_that_are_found_is_counted(own):
    described = features.load()[1](own)  # what agrees with a caption at best is the caption itself
    assert features.retrieval(described, own, CAPTIONS) == 1
    swapped = ["pizza"] * COLUMNS + own[COLUMNS:]
    assert features.retrieval(described, swapped, CAPTIONS) == 0.75
    assert features.retrieval(3 * described, own, CAPTIONS) == 1


# --- Training --------------------------------------------------------------------------------------------


def test_blur_is_a_gaussian_of_this_width():
    impulse = torch.zeros(1, 3, 41, 41)
    impulse[..., 20, 20] = 1
    blurred, places = features.blur(impulse, 3.0), torch.arange(41.0) - 20
    for axis in (2, 3):
        line = blurred.sum(axis)[0, 0]
        assert line.sum().item() == pytest.approx(1)
        assert (line * places.square()).sum().sqrt().item() == pytest.approx(3, rel=0.03)  # it ends at 3 sigma
    assert torch.equal(features.blur(impulse, 0), impulse)


def test_blur_leaves_one_colour_as_it_is_up_to_the_edges():
    plain = torch.full((2, 3, 16, 16), 0.7)
    assert torch.allclose(features.blur(plain, 2.0), plain)


def test_every_picture_is_moved_and_lightened_by_a_draw_of_its_own(emoji):
    same = emoji[:1].permute(0, 3, 1, 2).expand(4, -1, -1, -1)
    first, again = (features.augment(same, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.pdist(first.flatten(1)).min() > 1
    white = features.augment(torch.ones(4, 3, 16, 16), torch.Generator().manual_seed(0))
    lights = white[:, 0, 0, 0]
    assert torch.allclose(white, lights[:, None, None, None].expand_as(white))
    assert ((lights > 0.85) & (lights < 1.15)).all()


def test_towers_are_read_as_they_were_written(tmp_path, monkeypatch, emoji):
    monkeypatch.setattr(features, "WEIGHTS", tmp_path / "new.safetensors")
    tower, text = features.PictureTower(), features.WordTower(["heart", "red"])
    trained = torch.nn.ModuleDict({"tower": tower, "text": text, "sharpness": torch.nn.Linear(features.WIDTH, 1)})
    features.save(trained.state_dict(), ["heart", "red"])
    read_tower, read_text = features.load.__wrapped__()
    assert read_text.index == {"heart": 0, "red": 1}
    with torch.no_grad():
        pictures = emoji[:2].permute(0, 3, 1, 2)
        assert torch.allclose(read_tower(pictures), tower(pictures), atol=1e-2)  # in half precision
        assert torch.allclose(read_text(["red heart"]), text(["red heart"]), atol=1e-3)
    assert not any(weight.requires_grad for weight in read_tower.parameters())
