"""Latents of pictures: each made once, kept by content, or made anew at every step."""

from dataclasses import replace

import pytest
import torch
from dataset_files import Fake, add, opts_of
from PIL import Image
from torch import nn

from training import data
from training.data.buckets import Fit
from training.data.samples import View


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def two(folder, **named):
    """Options of two pictures, red at the left of the one and all of the other."""
    path = add(folder / "data" / "1_x", "a.png", "a", size=(64, 64), color="red")
    add(folder / "data" / "1_x", "b.png", "b", size=(128, 64), color="blue")
    assert path.is_file()
    return opts_of(folder, **named)


def all_of(dataset):
    return dataset.batch(0, len(dataset.samples), slice(None))


def test_pictures_are_encoded_once_in_batches(tmp_path, fake):
    dataset = data.load(fake.models, two(tmp_path, vae_batch_size=8))
    assert fake.pictures == [2]
    for number in range(3):
        batch = dataset.batch(number, 2, slice(None))
        assert batch.latents.shape == (2, 3, 8, 8)
        assert batch.latents.dtype == torch.float32
        colors = {round(latent[0].mean().item()) for latent in batch.latents}
        assert colors == {0, 1}
    assert fake.pictures == [2]


def test_only_pictures_of_one_bucket_are_encoded_together(tmp_path, fake):
    opts = two(tmp_path, resolution="512", enable_bucket=True, vae_batch_size=8)
    data.load(fake.models, opts)
    assert fake.pictures == [1, 1]


def test_the_mirrored_are_encoded_too(tmp_path, fake):
    add(tmp_path / "data" / "1_x", "a.png", "a")
    dataset = data.load(fake.models, opts_of(tmp_path, flip_aug=True))
    assert fake.pictures == [1, 1]
    assert len(dataset.latents.store) == 2


def test_the_same_picture_is_encoded_once(tmp_path, fake):
    for name in ("a.png", "b.png"):
        add(tmp_path / "data" / "1_x", name, name)
    assert len(data.load(fake.models, opts_of(tmp_path)).samples) == 2
    assert fake.pictures == [1]


def test_on_the_disk_they_stay_for_the_next_run(tmp_path, fake):
    opts = two(tmp_path, cache_latents_to_disk=True)
    first = all_of(data.load(fake.models, opts))
    fake.pictures.clear()
    again = all_of(data.load(fake.models, opts))
    assert fake.pictures == []
    assert torch.equal(first.latents, again.latents)


def another_vae(fake, folder):
    nn.init.ones_(fake.models.vae.first_stage_model.weight)


def another_picture(fake, folder):
    add(folder / "data" / "1_x", "a.png", "a", color="green")


def a_broken_file(fake, folder):
    next((folder / "output" / "cache" / "latents").iterdir()).write_bytes(b"")


@pytest.mark.parametrize(("change", "made"), [(another_vae, 2), (another_picture, 1), (a_broken_file, 1)])
def test_what_has_changed_is_encoded_again(tmp_path, fake, change, made):
    opts = two(tmp_path, cache_latents_to_disk=True)
    data.load(fake.models, opts)
    fake.pictures.clear()
    change(fake, tmp_path)
    data.load(fake.models, opts)
    assert fake.pictures == [1] * made


def test_another_resolution_is_encoded_again(tmp_path, fake):
    data.load(fake.models, two(tmp_path, cache_latents_to_disk=True))
    data.load(fake.models, two(tmp_path, cache_latents_to_disk=True, resolution="32"))
    assert len(fake.pictures) == 4


def test_a_latent_that_is_not_finite_names_its_file(tmp_path, fake):
    fake.broken = 1.0  # the red one
    with pytest.raises(ValueError, match=r"1 of 2 cannot be used:\n.*a\.png has a latent that is not finite"):
        data.load(fake.models, two(tmp_path))


@pytest.mark.parametrize("disk", [False, True])
def test_a_latent_that_is_not_finite_may_be_skipped(tmp_path, fake, caplog, disk):
    fake.broken = 1.0
    dataset = data.load(fake.models, two(tmp_path, bad_data="skip", cache_latents_to_disk=disk))
    assert [sample.caption for sample in dataset.samples] == ["b"]
    assert "a.png has a latent that is not finite" in caplog.text
    assert "left out: 1" in "\n".join(dataset.lines())


def test_without_a_cache_they_are_encoded_at_every_step(tmp_path, fake):
    opts = two(tmp_path, cache_latents=False)
    dataset = data.load(fake.models, opts)
    assert fake.pictures == []
    live = all_of(dataset)
    assert fake.pictures == [1, 1]
    assert torch.equal(live.latents, all_of(data.load(fake.models, two(tmp_path))).latents)


def test_without_a_cache_what_goes_wrong_later_is_named(tmp_path, fake):
    dataset = data.load(fake.models, two(tmp_path, cache_latents=False))
    fake.broken = 1.0
    with pytest.raises(ValueError, match=r"a\.png has a latent that is not finite"):
        all_of(dataset)
    (tmp_path / "data" / "1_x" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png is not a readable picture"):
        all_of(dataset)


def test_random_windows_are_other_ones_each_time_and_say_where_they_are(tmp_path, fake):
    add(tmp_path / "data" / "1_x", "a.png", "a", size=(640, 128))
    dataset = data.load(fake.models, opts_of(tmp_path, cache_latents=False, random_crop=True))
    sizes = [dataset.batch(number, 1, slice(None)).sizes[0] for number in range(40)]
    assert len({size.crop_w for size in sizes}) > 20
    assert all(0 <= size.crop_w <= 320 - 64 and size.crop_h == 0 for size in sizes)
    assert {(s.width, s.height, s.target_width, s.target_height) for s in sizes} == {(640, 128, 64, 64)}


def test_the_size_of_a_mirrored_picture_is_that_of_the_mirrored_whole(tmp_path, fake):
    add(tmp_path / "data" / "1_x", "a.png", "a", size=(129, 64))
    dataset = data.load(fake.models, opts_of(tmp_path, flip_aug=True))
    batches = [dataset.batch(number, 1, slice(None)) for number in range(20)]
    assert {batch.sizes[0].crop_w for batch in batches} == {32, 33}


def test_whether_it_is_mirrored_is_drawn(tmp_path, fake):
    path = add(tmp_path / "data" / "1_x", "a.png", "a")
    image = Image.new("RGB", (64, 64), "black")
    image.paste((255, 255, 255), (0, 0, 32, 64))
    image.save(path)
    dataset = data.load(fake.models, opts_of(tmp_path, flip_aug=True))
    left = [dataset.batch(number, 1, slice(None)).latents[0, 0, 0, 0].item() for number in range(100)]
    assert set(left) == {0.0, 1.0}
    assert 30 < left.count(1.0) < 70


def test_another_scale_of_the_same_window_is_another_latent(tmp_path):
    add(tmp_path / "data" / "1_x", "a.png", "a")
    (sample,) = data.survey(opts_of(tmp_path)).samples
    larger = replace(sample, fit=Fit((70, 64), sample.fit.bucket))
    assert View(sample, (0, 0), False).key != View(larger, (0, 0), False).key


def test_sizes_that_the_autoencoder_cannot_have_are_refused(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(data.host, "downscale", lambda models: 16)
    with pytest.raises(ValueError, match="resolution must be a multiple of 16, got 72,72"):
        data.load(fake.models, two(tmp_path, resolution="72"))
    assert fake.texts == []
