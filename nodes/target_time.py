"""TCF(S+) in ComfyUI's UNet: the embedding of the target time s, beside that of t, by the host's own `emb_patch`."""

from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from .. import tcd

TARGET = "tcd_target_time"  # key in transformer_options


class Patch:
    """Adds the embedding of s, where the sampler tells one, to the UNet's embedding of t."""

    def __init__(self, embed: tcd.TargetTime, strength: float):
        self.embed, self.strength = embed.requires_grad_(False), strength

    def to(self, target: torch.device | torch.dtype) -> "Patch":
        """Moves to a device. ComfyUI also asks for the model's dtype: of eight or sixteen bits, it would spoil it."""
        if not isinstance(target, torch.dtype):
            self.embed.to(target)
        return self

    def __call__(self, emb: Tensor, model_channels: int, transformer_options: dict[str, Any]) -> Tensor:
        s = transformer_options.get(TARGET)
        if s is None:
            return emb
        time = torch.tensor([max(s, tcd.DiscreteVP.clean)], device=self.embed.out.weight.device)
        return emb + (self.strength * self.embed(time)).to(emb)


def install(model, embed: tcd.TargetTime, strength: float = 1.0):
    """A clone of the model whose UNet hears the target time that `told` tells; without one it computes what it did.

    The embedding is scaled by `strength`, like the LoRA that it came with: its last layer was zero in the teacher, so
    that strength 0 is the teacher, and embeddings of several LoRAs add up. Raises ValueError for a network that is not
    ComfyUI's UNetModel, or whose embedding of t has another width.
    """
    unet = model.model.diffusion_model
    if not isinstance(unet, UNetModel):
        kind = type(unet).__name__
        raise ValueError(f"TCF(S+) is for UNets (SD 1.x, 2.x, SDXL): ComfyUI's {kind} takes no embedding of s")
    width, ours = unet.time_embed[-1].out_features, embed.out.out_features
    if ours != width:
        raise ValueError(f"the embedding of s is {ours} wide, this model's embedding of t {width}: of another model")
    model = model.clone()
    model.set_model_emb_patch(Patch(embed, strength))
    return model


def told(model_options: dict[str, Any], s: float) -> dict[str, Any]:
    """A copy of `model_options` that tells the UNet s, a training timestep of the model; -1 and below is clean data."""
    options = model_options.get("transformer_options", {})
    return {**model_options, "transformer_options": {**options, TARGET: float(s)}}


def is_installed(model_options: dict[str, Any]) -> bool:
    """Whether the model hears the target time."""
    patches = model_options.get("transformer_options", {}).get("patches", {})
    return any(isinstance(patch, Patch) for patch in patches.get("emb_patch", []))
