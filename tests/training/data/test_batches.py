"""Batches: every sample as often as it should be, one bucket each, and the same whoever asks when."""

from collections import Counter

import pytest
import torch
from dataset_files import Fake, add, opts_of
from hypothesis import given
from hypothesis import strategies as st

from training import data
from training.data import batches

REPEATS = st.lists(st.integers(1, 4), min_size=1, max_size=30)  # of the samples of one bucket


@given(st.lists(REPEATS, min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 3), st.integers(1, 40))
def test_an_epoch_shows_all_samples_in_full_batches_of_one_bucket(repeats, seed, epoch, size):
    buckets = {
        (64, 64 * i): [100 * i + j for j, n in enumerate(each) for _ in range(n)] for i, each in enumerate(repeats)
    }
    made = batches.epoch_of(buckets, seed, epoch, size)
    assert all(len(batch) == size for batch in made)
    assert all(len({i // 100 for i in batch}) == 1 for batch in made)
    shown = Counter(i for batch in made for i in batch)
    for indices in buckets.values():
        assert all(shown[i] >= indices.count(i) for i in indices)
        assert sum(shown[i] for i in set(indices)) - len(indices) < size


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Five pictures of two buckets, two of them twice an epoch; all that can be drawn is."""
    fake = Fake(monkeypatch)
    for i, size in enumerate([(64, 64), (64, 64), (64, 64), (128, 64), (128, 64)]):
        add(tmp_path / "data" / f"{1 + i % 2}_x", f"{i}.png", f"{i}, a, b, c", size, color=(50 * i, 0, 0))
    return data.load(fake.models, opts_of(tmp_path, **DRAWN))


DRAWN = {
    "enable_bucket": True,
    "resolution": "96",
    "min_bucket_reso": 64,
    "bucket_reso_steps": 32,
    "flip_aug": True,
    "random_crop": True,
    "cache_latents": False,
    "shuffle_caption": True,
    "cache_text_encoder_outputs": False,
    "caption_dropout_rate": 0.2,
}


def same(one, other):
    assert (one.number, one.places, one.sizes) == (other.number, other.places, other.sizes)
    assert torch.equal(one.latents, other.latents)
    assert [cond.cross.tolist() for cond in one.conds] == [cond.cross.tolist() for cond in other.conds]


def test_any_split_gives_the_whole_batch(dataset):
    for number in range(6):
        whole = dataset.batch(number, 4, slice(None))
        for width in (1, 2, 3):
            parts = [dataset.batch(number, 4, slice(i, i + width)) for i in range(0, 4, width)]
            assert [place for part in parts for place in part.places] == whole.places == [0, 1, 2, 3]
            assert [size for part in parts for size in part.sizes] == whole.sizes
            said = [cond.cross.tolist() for part in parts for cond in part.conds]
            assert said == [cond.cross.tolist() for cond in whole.conds]
            assert torch.equal(torch.cat([part.latents for part in parts]), whole.latents)
            assert all(part.number == number for part in parts)


def test_what_a_batch_holds_does_not_hang_on_those_before(dataset, tmp_path, monkeypatch):
    forward = [dataset.batch(number, 2, slice(None)) for number in range(12)]
    again = data.load(Fake(monkeypatch).models, opts_of(tmp_path, **DRAWN))
    for number in reversed(range(12)):
        same(again.batch(number, 2, slice(None)), forward[number])


def test_another_seed_and_another_epoch_have_another_order(dataset):
    def order(seed, epoch):
        return batches.epoch_of({(64, 64): list(range(20))}, seed, epoch, 2)

    orders = [order(seed, epoch) for seed in range(2) for epoch in range(3)]
    assert len({str(made) for made in orders}) == 6
    assert len({str(sorted(map(sorted, made))) for made in orders}) == 6  # others come together, too


def test_the_batches_of_all_buckets_are_mixed_anew_in_every_epoch():
    buckets = {(64, 64 * i): [i] * 5 for i in (1, 2)}
    orders = [str(batches.epoch_of(buckets, 0, epoch, 1)) for epoch in range(8)]
    assert len(set(orders)) > 4


def test_every_place_of_a_batch_draws_its_own_caption(tmp_path, monkeypatch):
    add(tmp_path / "data" / "1_x", "a.png", "a, b, c, d, e")
    named = {"shuffle_caption": True, "cache_text_encoder_outputs": False}
    fake = Fake(monkeypatch)
    data.load(fake.models, opts_of(tmp_path, **named)).batch(0, 8, slice(None))
    assert len(set(fake.texts)) > 6


@pytest.mark.parametrize(("size", "number"), [(1, 7), (2, 4), (3, 3), (100, 2)])
def test_the_batches_of_an_epoch_are_counted(dataset, size, number):
    assert dataset.batches_per_epoch(size) == number
    shapes = {tuple(dataset.batch(i, size, slice(None)).latents.shape[2:]) for i in range(number)}
    assert len(shapes) == 2


def test_sizes_tell_the_whole_picture_and_its_bucket(dataset):
    batch = dataset.batch(0, 2, slice(None))
    (_, _, height, width), size = batch.latents.shape, batch.sizes[0]
    assert (size.target_width, size.target_height) == (width * 8, height * 8)
    assert (size.width, size.height) in {(64, 64), (128, 64)}
