"""The layers of true models, on the meta device: which a LoRA of them has, and whether ComfyUI knows their names."""

import host_process
import pytest
import small_models
import torch

from tcd import lora
from tcd.lora import ldm
from training import adapters

pytestmark = [pytest.mark.host, pytest.mark.slow]

FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "num_heads": 24,
    "axes_dim": [16, 56, 56],
    "mlp_ratio": 4.0,
    "depth": 19,
    "depth_single_blocks": 38,
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}
LUMINA2 = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 2304,
    "cap_feat_dim": 2304,
    "n_layers": 26,
    "n_heads": 24,
    "n_kv_heads": 8,
    "axes_dims": [32, 32, 32],
    "axes_lens": [300, 512, 512],
    "qk_norm": True,
}
RANK = 64


@pytest.fixture(scope="module")
def models():
    """ComfyUI's models of the true sizes, without weights."""
    host_process.pack()
    from demo import checkpoints

    sd2 = checkpoints.SD15 | {"context_dim": 1024, "use_linear_in_transformer": True}
    configs = {"sd15": checkpoints.SD15, "sd2": sd2, "sdxl": checkpoints.SDXL, "sd3": checkpoints.SD3}
    with torch.device("meta"):
        return {
            name: checkpoints.diffusion_model(small_models.as_asked(config))
            for name, config in (configs | {"flux": FLUX, "lumina2": LUMINA2}).items()
        }


def layers(model, target: str = "all") -> dict[str, lora.adapter.Layer]:
    """What network_args target=... adapts."""
    chosen = adapters.Arguments(target=target)
    found = lora.adaptable(model.diffusion_model)
    return {name: layer for name, layer in found.items() if adapters.wanted(name, chosen)}


def millions(found: dict[str, lora.adapter.Layer]) -> float:
    """Parameters of a LoRA of rank 64 for them."""
    shapes = [layer.weight.shape for layer in found.values()]
    return round(sum(RANK * (shape[0] + shape[1:].numel()) for shape in shapes) / 1e6, 1)


@pytest.mark.parametrize(
    ("name", "target", "count", "size"),
    [
        ("sdxl", "attention", 722, 170.2),
        ("sd15", "attention", 192, 27.1),
        ("sdxl", "blocks", 788, 196.8),  # the layers that LCM-LoRA has
        ("sd15", "blocks", 278, 67.3),
        ("sdxl", "all", 794, 197.7),
        ("sd15", "all", 282, 67.7),
    ],
)
def test_targets_are_the_layers_that_other_loras_have(models, name, target, count, size):
    found = layers(models[name], target)
    assert (len(found), millions(found)) == (count, size)


@pytest.mark.parametrize("name", ["sd3", "flux", "lumina2"])
def test_targets_of_transformers_leave_out_what_is_around_the_blocks(models, name):
    every, blocks, attention = (set(layers(models[name], target)) for target in ("all", "blocks", "attention"))
    assert attention < blocks < every
    kinds = ("joint_blocks.", "double_blocks.", "single_blocks.", "layers.", "noise_refiner.", "context_refiner.")
    assert blocks == {layer for layer in every if layer.startswith(kinds)}
    numbered = [{tuple(layer.split(".")[:2]) for layer in found} for found in (attention, blocks)]
    assert numbered[0] == numbered[1]  # every block has some


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl", "sd3", "flux", "lumina2"])
def test_comfyui_knows_the_name_of_every_layer(models, name):
    import comfy.lora

    known = comfy.lora.model_lora_keys_unet(models[name], {})
    for layer in layers(models[name]):
        assert known[lora.kohya_name(layer)] == f"diffusion_model.{layer}.weight"


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl"])
def test_comfyui_knows_the_name_that_diffusers_has_for_every_layer(models, name):
    import comfy.lora

    known, ours = comfy.lora.model_lora_keys_unet(models[name], {}), set(layers(models[name]))
    theirs = ldm.diffusers_names(ours)
    assert set(theirs.values()) == ours
    for diffusers, layer in theirs.items():
        assert known[lora.kohya_name(diffusers)] == f"diffusion_model.{layer}.weight"
