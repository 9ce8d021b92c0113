"""Texts and pictures as ComfyUI's own encoders give them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .models import Models


class Size(NamedTuple):
    """What SDXL is told of a picture, in pixels: its size, where it was cut, and the size that it was cut to."""

    width: int
    height: int
    crop_w: int
    crop_h: int
    target_width: int
    target_height: int


@dataclass(frozen=True)
class Cond:
    """What the text encoders say of one text: `cross` [1, L, D], `pooled` [1, P] or none, and what else they gave."""

    cross: Tensor
    pooled: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    def zeros(self) -> "Cond":
        """The same with zeros, as ComfyUI's ConditioningZeroOut."""
        return Cond(
            torch.zeros_like(self.cross), None if self.pooled is None else torch.zeros_like(self.pooled), self.extra
        )

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a file."""
        pooled = {} if self.pooled is None else {"pooled": self.pooled}
        return {"cross": self.cross, **pooled, **{f"extra.{name}": value for name, value in self.extra.items()}}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor]) -> "Cond":
        """The inverse of `tensors`."""
        extra = {name.removeprefix("extra."): value for name, value in tensors.items() if name.startswith("extra.")}
        return cls(tensors["cross"], tensors.get("pooled"), extra)


@torch.no_grad()
def encode_text(models: Models, text: str) -> Cond:
    """The outputs of the text encoders for one text, as CLIPTextEncode gives them; on the CPU, in float32."""
    found = models.clip.encode_from_tokens(models.clip.tokenize(text), return_pooled=True, return_dict=True)
    kept = {
        name: value.float().cpu() if value.is_floating_point() else value.cpu()
        for name, value in found.items()
        if torch.is_tensor(value)
    }
    return Cond(kept.pop("cond"), kept.pop("pooled_output", None), kept)


@torch.no_grad()
def encode_pictures(models: Models, pixels: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] in [0, 1] as latents [B, C, h, w] in the model's space; on the CPU, in float32."""
    return models.model.model.process_latent_in(models.vae.encode(pixels)).float().cpu()


@torch.no_grad()
def decode_latents(models: Models, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] of the model's space as pictures [B, H, W, 3] in [0, 1]; on the CPU."""
    return models.vae.decode(models.model.model.process_latent_out(latents.float())).clamp(0, 1).cpu()


def downscale(models: Models) -> int:
    """Pixels a side of one cell of a latent."""
    return int(models.vae.spacial_compression_encode())
