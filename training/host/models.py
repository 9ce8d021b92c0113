"""ComfyUI's own objects, and what they are in tcd's words."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import tcd

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Models:
    """ComfyUI's MODEL (a ModelPatcher), CLIP and VAE. The latter two may be gone once all is encoded."""

    model: Any
    clip: Any
    vae: Any

    @property
    def unet(self) -> nn.Module:
        """The diffusion model, UNet or not."""
        return self.model.model.diffusion_model

    @property
    def architecture(self) -> str:
        return type(self.model.model.model_config).__name__

    @property
    def device(self) -> torch.device:
        """Where the diffusion model is."""
        return next(self.unet.parameters()).device

    @property
    def sampling(self) -> Any:
        return self.model.model.model_sampling

    @property
    def kind(self) -> str:
        """What the network predicts, in tcd's words. Raises ValueError for a kind that cannot be distilled."""
        return family_of(self.sampling)[0]

    @property
    def sched(self) -> tcd.Schedule:
        return family_of(self.sampling)[1](self.sampling)


def discrete(sampling: Any) -> tcd.Schedule:
    return tcd.DiscreteVP.from_sigmas(sampling.sigmas)


def flow(sampling: Any) -> tcd.Schedule:
    return tcd.RectifiedFlow.from_sigmas(sampling.sigmas)


def family_of(sampling: Any) -> tuple[str, Callable[[Any], tcd.Schedule]]:
    """(kind of prediction, how the schedule is made) of a model's `model_sampling`. Raises ValueError for others."""
    import comfy.model_sampling as known

    families = {
        (known.ModelSamplingDiscrete, known.EPS): ("eps", discrete),
        (known.ModelSamplingDiscrete, known.V_PREDICTION): ("v", discrete),
        (known.ModelSamplingDiscrete, known.X0): ("x0", discrete),
        (known.ModelSamplingDiscreteFlow, known.CONST): ("flow", flow),
        (known.ModelSamplingFlux, known.CONST): ("flow", flow),
    }
    bases = type(sampling).__bases__
    found = " with ".join(base.__name__ for base in reversed(bases))
    if bases not in families:
        raise ValueError(f"eps, v and x0 predictions of discrete time and rectified flow can be distilled, not {found}")
    if (scale := getattr(sampling, "noise_scale", 1.0)) != 1:  # of some flow models, on ComfyUI 0.21 and later
        raise ValueError(f"{found} has noise of scale {scale:g}, which cannot be distilled")
    return families[bases]


def place(models: Models, device: torch.device | None = None) -> Models:
    """Move the diffusion model to ComfyUI's device, past its management: nothing may unload it while it trains."""
    import comfy.model_management

    comfy.model_management.unload_all_models()  # a loader may have put it there, under management
    models.unet.to(device or comfy.model_management.get_torch_device())
    models.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for module in models.unet.modules():
        if type(module).__name__ == "SpatialTransformer" and channels_last not in module._forward_hooks.values():
            module.register_forward_hook(channels_last)
    return models


def channels_last(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    """A hook: ComfyUI's transformers in UNets give the other format, which all convolutions after them would copy."""
    return output.contiguous(memory_format=torch.channels_last)


def release(models: Models) -> Models:
    """The models without text encoder, whose memory is given back."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    return replace(models, clip=None)
