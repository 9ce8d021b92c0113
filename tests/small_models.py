"""Small models of every family that can be distilled: ComfyUI's own classes with random weights, a text encoder and a
VAE that are only numbers.

Each is a `checkpoint_loader`: `small_models:sd15`. The file that it is asked to load is not looked at.
"""

import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training import host

TEXT, POOLED = 32, 24  # widths of what the text encoder gives
UNET = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
    "context_dim": TEXT,
    "adm_in_channels": None,
}
# As SD 2.x and SDXL: heads of 64 channels, so none where there are 32.
UNET_2 = UNET | {
    "transformer_depth": [0, 2],
    "transformer_depth_output": [0, 0, 2, 2],
    "use_linear_in_transformer": True,
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "multiple_of": 32,
    "qk_norm": True,
    "cap_feat_dim": TEXT,
}
# A key and what is in it by which ComfyUI tells that an SD 2.x predicts v.
PREDICTS_V = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.tensor([-1.0, 1.0])}


@dataclass(frozen=True)
class Family:
    """Its entry in ComfyUI's list of models, the network's parameters, and what its text encoder gives."""

    config: str
    network: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    told_by: dict[str, Tensor] = field(default_factory=dict)
    pooled: bool = False
    padded: bool = True  # to a length, which only long texts exceed
    masked: bool = False


FAMILIES = {
    "sd15": Family("SD15", UNET | {"use_linear_in_transformer": False}),
    "sd2": Family("SD20", UNET_2),
    "v_zsnr": Family("SD20", UNET_2, settings={"zsnr": True}, told_by=PREDICTS_V),
    "sdxl": Family("SDXL", UNET_2 | {"num_classes": "sequential", "adm_in_channels": POOLED + 6 * 256}, pooled=True),
    "sd3": Family(
        "SD3",
        {
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "depth": 2,
            "input_size": None,
            "adm_in_channels": POOLED,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": TEXT, "out_features": 128},
            },
            "qk_norm": "rms",
            "num_patches": 16**2,
            "pos_embed_max_size": 16,
            "pos_embed_scaling_factor": None,
        },
        pooled=True,
    ),
    "flux": Family(
        "Flux",
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "vec_in_dim": POOLED,
            "context_in_dim": TEXT,
            "hidden_size": 64,
            "num_heads": 2,
            "axes_dim": [8, 12, 12],
            "mlp_ratio": 4.0,
            "depth": 1,
            "depth_single_blocks": 2,
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": True,
        },
        pooled=True,
        padded=False,
    ),
    "lumina2": Family(
        "Lumina2",
        LUMINA | {"dim": 64, "n_kv_heads": 1, "axes_dims": [8, 12, 12]},
        padded=False,
        masked=True,
    ),
    "z_image": Family(
        "ZImage",
        LUMINA
        | {
            "dim": 256,
            "n_kv_heads": 2,
            "axes_dims": [32, 48, 48],
            "rope_theta": 256.0,
            "ffn_dim_multiplier": 8 / 3,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
        padded=False,
        masked=True,
    ),
}


class Clip:
    """In the place of ComfyUI's CLIP: the same random numbers for the same text, and the same layer of the encoder."""

    LENGTH = 8  # of a padded text

    def __init__(self, family: Family):
        self.family, self.layer = family, -1
        self.cond_stage_model = nn.Linear(TEXT, TEXT)  # which only stands for its weights
        randomize(self.cond_stage_model)

    def clip_layer(self, layer: int) -> None:
        self.layer = layer

    def tokenize(self, text: str) -> dict[str, list[str]]:
        return {"l": text.split()}

    def encode_from_tokens(self, tokens: dict, return_pooled: bool = False, return_dict: bool = False) -> dict:
        assert return_pooled
        assert return_dict
        words = tokens["l"]
        length = len(words) + 1
        if self.family.padded:
            length = -(-length // self.LENGTH) * self.LENGTH
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.layer} {' '.join(words)}".encode()))
        found: dict[str, Tensor | None] = {"cond": torch.randn(1, length, TEXT, generator=generator)}
        found["pooled_output"] = torch.randn(1, POOLED, generator=generator) if self.family.pooled else None
        if self.family.masked:
            found["attention_mask"] = torch.ones(1, length, dtype=torch.long)
        return found


class Vae:
    """In the place of ComfyUI's VAE: each 8x8 pixels are their mean colour, in three of the channels."""

    SIDE = 8

    def __init__(self, channels: int):
        self.first_stage_model = nn.Conv2d(3, channels, 1, bias=False)
        with torch.no_grad():
            self.first_stage_model.weight.copy_(torch.eye(channels, 3)[:, :, None, None])

    def spacial_compression_encode(self) -> int:
        return self.SIDE

    def encode(self, pixels: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(2 * pixels.movedim(-1, 1) - 1, self.SIDE)
        return self.first_stage_model(small)

    def decode(self, latents: Tensor) -> Tensor:
        colors = torch.einsum("ckij,bchw->bkhw", self.first_stage_model.weight, latents)
        pixels = nn.functional.interpolate((colors + 1) / 2, scale_factor=self.SIDE)
        return pixels.movedim(1, -1)


@torch.no_grad()
def randomize(net: nn.Module, seed: int = 0) -> None:
    """Weights that keep the scale of what goes through them, in place: ComfyUI's layers come uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        value = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            value *= (tensor.numel() / tensor.shape[0]) ** -0.5
        elif name.endswith("bias"):
            value *= 0.1
        else:  # of a normalisation
            value = 1 + 0.1 * value
        tensor.copy_(value)


def as_asked(network: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a network, with what only later hosts want to be told of a Flux."""
    from comfy.ldm.flux.model import FluxParams

    more = network.get("image_model") == "flux" and "txt_ids_dims" in FluxParams.__annotations__
    return network | {"txt_ids_dims": []} if more else network


def model_of(family: Family, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """ComfyUI's model of this family; its weights are whatever was in memory."""
    host.start()
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.config)(as_asked(family.network))
    config.sampling_settings |= family.settings
    config.set_inference_dtype(dtype, None)
    return config.get_model(dict(family.told_by), "", device=torch.device(device))


def load(family: str, path: object = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Clip, Vae]:
    """(MODEL, CLIP, VAE) of one of FAMILIES."""
    known = FAMILIES[family]
    model = model_of(known, dtype)
    randomize(model.diffusion_model)
    import comfy.model_management
    import comfy.model_patcher

    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, comfy.model_management.get_torch_device(), cpu)
    return patcher, Clip(known), Vae(model.latent_format.latent_channels)


@torch.no_grad()
def clean(models: host.Models, x: Tensor, t: Tensor, cond: host.Cond, size: host.Size, guidance: float) -> Tensor:
    """The clean prediction of ComfyUI's own sampling for one sample: x [1, C, h, w] in tcd's units, t [1]."""
    import comfy.samplers

    model, flow = models.model.model, models.kind == "flow"
    sigma = models.sched.sigma(t) if flow else models.sampling.sigma(t)
    named = {"cross_attn": cond.cross, "guidance": guidance, "model_conds": {}, **cond.extra, **size._asdict()}
    pooled = {} if cond.pooled is None else {"pooled_output": cond.pooled}
    encode, picture = comfy.samplers.encode_model_conds, torch.zeros_like(x)
    encoded: Any = encode(model.extra_conds, [named | pooled], x, x.device, "positive", latent_image=picture)
    conds = {name: one.process_cond(batch_size=1, area=None).cond for name, one in encoded[0]["model_conds"].items()}
    return model.apply_model(x if flow else x * (1 + sigma**2).sqrt(), sigma, **conds)


sd15, sd2, v_zsnr, sdxl, sd3, flux, lumina2, z_image = (partial(load, name) for name in FAMILIES)
