"""Captions as conditions: each encoded once, on the disk or not, or whenever they are shown."""

import gc
import weakref

import pytest
import torch
from dataset_files import Fake, add, opts_of
from torch import nn

from training import data


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def opts(folder, **named):
    for name, caption in (("a", "one"), ("b", "one"), ("c", "two, three")):
        add(folder / "data" / "1_x", f"{name}.png", caption)
    return opts_of(folder, **named)


def value(text):
    return float(sum(map(ord, text)))


def test_every_text_is_encoded_once_and_no_caption_too(tmp_path, fake):
    dataset = data.load(fake.models, opts(tmp_path))
    assert fake.texts == ["", "one", "two, three"]
    batch = dataset.batch(0, 3, slice(None))
    assert sorted(cond.cross[0, 0, 0].item() for cond in batch.conds) == sorted(
        map(value, ("one", "one", "two, three"))
    )
    assert fake.texts == ["", "one", "two, three"]
    assert batch.conds[0].pooled is not None
    assert batch.conds[0].extra.keys() == {"mask"}


@pytest.mark.parametrize(("uncond", "ones"), [("empty_prompt", 1), ("zeros", 0)])
def test_no_prompt_is_the_empty_one_or_zeros(tmp_path, fake, uncond, ones):
    made = data.load(fake.models, opts(tmp_path, uncond=uncond)).uncond
    assert made.tensors()["pooled"].tolist() == [[ones, ones]]


def test_a_dropped_caption_is_the_empty_one(tmp_path, fake):
    dataset = data.load(fake.models, opts(tmp_path, caption_dropout_rate=1.0, uncond="zeros"))
    cond = dataset.batch(0, 1, slice(None)).conds[0]
    assert (cond.cross.sum(), cond.tensors()["pooled"].sum()) == (0, 2)


def test_on_the_disk_they_stay_for_the_next_run(tmp_path, fake):
    named = opts(tmp_path, cache_text_encoder_outputs_to_disk=True)
    first = data.load(fake.models, named)
    fake.texts.clear()
    again = data.load(fake.models, named)
    assert fake.texts == []
    assert torch.equal(first.uncond.cross, again.uncond.cross)
    pairs = zip(first.batch(0, 3, slice(None)).conds, again.batch(0, 3, slice(None)).conds, strict=True)
    for one, other in pairs:
        assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())


def test_another_text_encoder_and_another_layer_encode_again(tmp_path, fake):
    named = opts(tmp_path, cache_text_encoder_outputs_to_disk=True)
    data.load(fake.models, named)
    data.load(fake.models, opts(tmp_path, cache_text_encoder_outputs_to_disk=True, clip_skip=2))
    assert len(fake.texts) == 6
    nn.init.ones_(fake.models.clip.cond_stage_model.weight)
    data.load(fake.models, named)
    assert len(fake.texts) == 9


def test_without_a_cache_varied_captions_are_encoded_as_they_come(tmp_path, fake):
    dataset = data.load(fake.models, opts(tmp_path, cache_text_encoder_outputs=False, shuffle_caption=True))
    assert fake.texts == [""]
    for number in range(20):
        dataset.batch(number, 3, slice(None))
    assert set(fake.texts) == {"", "one", "two, three", "three, two"}
    assert fake.texts.count("one") == 20


def test_a_data_set_with_cached_texts_lets_the_text_encoders_go(tmp_path, fake):
    named = opts(tmp_path, cache_latents=False)
    gone = weakref.ref(fake.models.clip.cond_stage_model)
    dataset = data.load(fake.models, named)
    fake.models = data.host.Models(fake.models.model, None, fake.models.vae)
    gc.collect()
    assert gone() is None
    assert dataset.batch(0, 1, slice(None)).latents.shape == (1, 3, 8, 8)
