"""The data of the embedded tiny model: its own autoencoder, text encoder and teacher."""

import host_process
import pytest
import torch
from dataset_files import add, opts_of
from host_process import ROOT

from training import data, host
from training.network import Parts

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture(scope="module")
def models():
    host_process.pack()
    return host.load(ROOT / "demo" / "tiny.safetensors", "demo.tiny:load")


def test_pictures_come_back_from_the_cached_latents(models, tmp_path):
    for name, size in (("red", (128, 128)), ("blue", (256, 128))):
        add(tmp_path / "data" / "1_x", f"{name}.png", f"{name} heart", size, name)
    named = {"enable_bucket": True, "min_bucket_reso": 64, "bucket_reso_steps": 32, "cache_latents_to_disk": True}
    opts = opts_of(tmp_path, resolution="128", cache_text_encoder_outputs_to_disk=True, vae_batch_size=4, **named)
    first, again = data.load(models, opts), data.load(models, opts)
    assert first.batches_per_epoch(2) == 2
    for number in range(2):
        batch, same = first.batch(number, 2, slice(None)), again.batch(number, 2, slice(None))
        size = batch.sizes[0]
        assert batch.latents.shape == (2, 4, size.target_height // 8, size.target_width // 8)
        assert torch.equal(batch.latents, same.latents)
        assert torch.equal(batch.conds[0].cross, same.conds[0].cross)
        red, _, blue = host.decode_latents(models, batch.latents).mean((0, 1, 2))
        assert (red - blue) * (1 if size.width == 128 else -1) > 0.5


def test_the_teacher_makes_latents_for_prompts(models, tmp_path):
    (tmp_path / "prompts.txt").write_text("red heart\ngreen apple\n", encoding="utf-8")
    opts = opts_of(
        tmp_path,
        prompts=tmp_path / "prompts.txt",
        resolution="128",
        teacher_steps=3,
        teacher_solver="ddim",
        network_dim=4,
        train_batch_size=2,
    )
    parts = Parts(models, opts)
    batch = data.load(models, opts, parts).batch(0, 2, slice(None))
    assert batch.latents.shape == (2, 4, 16, 16)
    assert batch.latents.isfinite().all()
    assert torch.equal(batch.latents, data.load(models, opts, parts).batch(0, 2, slice(None)).latents)
