"""The pieces of the tiny model's training that can be checked without training it."""

import json
from pathlib import Path

import pytest
import torch

import tcd
from demo import train_tiny


def test_the_learning_rate_warms_up_stays_and_cools_down_to_nothing():
    rates = [train_tiny.learning_rate(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[100:750] == [1e-3] * 650
    assert rates[875] == pytest.approx(5e-4)
    assert rates[-1] == pytest.approx(4e-6)


def test_a_longer_plan_is_the_same_until_the_cool_down():
    short, long = ([train_tiny.learning_rate(step, steps, 1.0) for step in range(750)] for steps in (1000, 2000))
    assert short == long


def test_velocity_weights_have_mean_one_and_grow_with_the_noise():
    weight = train_tiny.velocity_weight(tcd.DiscreteVP.scaled_linear())
    assert weight.mean().item() == pytest.approx(1.0)
    assert bool((weight.diff() >= 0).all())
    assert weight[-1] / weight[0] == pytest.approx(20 * (1 - 0.00085), rel=1e-4)


def test_the_running_average_forgets_the_start_first():
    assert train_tiny.ema_decay(0) == 0.1
    assert train_tiny.ema_decay(10**6) == 0.999


def test_white_latents_cost_nothing_and_equal_channels_do():
    z = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert train_tiny.whiteness(z) < 0.01
    assert train_tiny.whiteness(z[:, :1].expand(-1, 4, -1, -1)) > 10


def test_the_pixel_loss_is_zero_for_the_picture_itself_and_sees_colour_before_detail():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert train_tiny.pixel_loss(x, x, 1.0) == 0
    noise = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    tint = 0.1 * torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1)
    assert train_tiny.pixel_loss(x + tint, x, 0.0) > 10 * train_tiny.pixel_loss(x + noise, x, 0.0)


@pytest.mark.host
@pytest.mark.slow
def test_packing_gives_the_weights_half_precision_and_stable_diffusion_s_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from training import host

    host.start()
    from demo import tiny

    z = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    rgb = torch.randint(0, 256, (8, 3, 128, 128), dtype=torch.uint8)
    monkeypatch.setattr(train_tiny, "RUNS", tmp_path)
    monkeypatch.setattr(train_tiny, "latents", lambda: (z, torch.zeros(4), torch.ones(4)))
    monkeypatch.setattr(train_tiny, "pictures", lambda: (rgb, [""] * 8))
    before, metadata = tiny.read(tiny.CHECKPOINT)
    unet, text, vae = ({k: v.float() for k, v in tiny.part(before, prefix).items()} for prefix in tiny.PARTS)
    trained = {f"unet.{key}": value for key, value in unet.items()} | {f"text.{k}": v for k, v in text.items()}
    nested = {"encoder.": "encoder.1.", "decoder.": "decoder.0."}  # as `tiny.finish_vae` leaves them
    for old, new in nested.items():
        vae = {key.replace(old, new, 1) if key.startswith(old) else key: value for key, value in vae.items()}
    torch.save(vae, tmp_path / "vae.pt")
    words = json.loads(metadata["tcd.vocabulary"])
    state = {"weights": trained, "words": words, "mean": torch.zeros(4), "std": torch.ones(4)}
    torch.save(state, tmp_path / "unet.pt")
    monkeypatch.setattr(tiny, "CHECKPOINT", tmp_path / "again.safetensors")
    train_tiny.pack(0)
    after, metadata = tiny.read(tmp_path / "again.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert metadata["modelspec.architecture"] == tiny.ARCHITECTURE
    assert metadata["tcd.seed"] == str(train_tiny.SEED)
