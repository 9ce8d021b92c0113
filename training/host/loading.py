"""A checkpoint as ComfyUI's own objects; what cannot be distilled is refused here."""

import logging
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import getattr_static
from pathlib import Path
from typing import Any

import torch

from .gradients import allow_gradients
from .models import Models
from .start import choose_attention, start


def function_of(option: str, name: str) -> Callable:
    """The function that an option names. Raises ValueError if there is none."""
    try:
        found = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"{option} {name!r} cannot be found: {error}") from error
    if not callable(found):
        raise ValueError(f"{option} must be package.module:function, got {name!r}")
    return found


@contextmanager
def all_there() -> Iterator[None]:
    """Raises ValueError where a diffusion model is loaded within the `with` that lacks weights.

    ComfyUI goes on with whatever is in the memory, and tells its log alone.
    """
    missing, root = [], logging.getLogger()

    def hear(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("unet missing"):
            missing.append(record.getMessage())
        return True

    root.addFilter(hear)
    try:
        yield
    finally:
        root.removeFilter(hear)
    if missing:
        raise ValueError(f"weights are missing, {missing[0]:.200}")


def load_parts(path: Path, dtype: torch.dtype, text_encoders: Sequence[str]) -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE) of a file, by ComfyUI. With files of text encoders, of the file the diffusion model alone."""
    import comfy.ops
    import comfy.sd

    # Without ComfyUI's own choice of operations: the weights are in `dtype`, and nothing is to be cast on the way.
    model_options = {"dtype": dtype, "custom_operations": comfy.ops.disable_weight_init}
    try:
        with all_there():
            if not text_encoders:
                return comfy.sd.load_checkpoint_guess_config(str(path), model_options=model_options)[:3]
            model = comfy.sd.load_diffusion_model(str(path), model_options=model_options)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint that ComfyUI can load: {error}") from error
    return model, load_text_encoders(text_encoders, type(model.model.model_config).__name__), None


# ComfyUI's name of an architecture -> its name of the way in which text encoders from files of their own are used.
CLIP_TYPES = {
    **dict.fromkeys(("Flux", "FluxSchnell"), "FLUX"),
    **dict.fromkeys(("Lumina2", "ZImage"), "LUMINA2"),
    "SD3": "SD3",
    "Chroma": "CHROMA",
}


def load_text_encoders(paths: Sequence[str], architecture: str) -> Any:
    """The CLIP that these files make together. Raises ValueError for files that ComfyUI does not know."""
    import comfy.sd

    kind = comfy.sd.CLIPType[CLIP_TYPES.get(architecture, "STABLE_DIFFUSION")]
    try:
        return comfy.sd.load_clip(list(paths), clip_type=kind)
    except Exception as error:
        raise ValueError(f"text_encoders {', '.join(paths)} cannot be loaded for {architecture}: {error}") from error


def load(
    path: Path,
    loader: str = "",
    dtype: torch.dtype = torch.float32,
    vae: str = "",
    text_encoders: Sequence[str] = (),
) -> Models:
    """Load a checkpoint, frozen, in `dtype`. `loader` names another function than ComfyUI's, `vae` another VAE's file.

    With files of `text_encoders`, it may hold the diffusion model alone. It stays where ComfyUI put it; `place` moves
    it. Raises ValueError for a file that holds no diffusion model, where text encoder or VAE are missing, and for a
    model that cannot be trained or is not for pictures from noise and text.
    """
    start()
    from comfy.cli_args import args

    args.fp32_vae = True  # half-precision ones give NaN, and encoding is done once
    choose_attention(dtype)
    if loader:
        found = function_of("checkpoint_loader", loader)(path, dtype=dtype)
    else:
        found = load_parts(path, dtype, text_encoders)
    models = Models(*found)
    check_whole(models, path, bool(vae))
    check_kind(models, path)
    check_finite(models, path)
    models.unet.requires_grad_(False).eval()
    allow_gradients(models.unet)
    return replace(models, vae=load_vae(Path(vae), models)) if vae else models


def check_whole(models: Models, path: Path, other_vae: bool) -> None:
    """Raises ValueError for a checkpoint that lacks a part; the VAE only where there is no other."""
    parts = {
        "diffusion model": models.model,
        "text encoder": models.clip,
        "VAE": other_vae or getattr(models.vae, "first_stage_model", None),
    }
    if missing := [name for name, part in parts.items() if part is None]:
        advice = "name files of their own by text_encoders and vae"
        raise ValueError(f"{path} has no {' and no '.join(missing)}: {advice}")


QUANTIZED = ("scaled_fp8", "layer_quant_config", "quant_config")  # the names that versions of ComfyUI have for it


def check_finite(models: Models, path: Path) -> None:
    """Raises ValueError, with its name, for a weight of the diffusion model that is not finite."""
    for name, weight in models.unet.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{path} is broken: {name} of its diffusion model holds values that are not finite")


def check_kind(models: Models, path: Path) -> None:
    """Raises ValueError for weights without gradient, and for a network that wants more than noise and a text."""
    model = models.model.model
    if any(getattr_static(model.model_config, name, None) is not None for name in QUANTIZED):  # asked, ComfyUI may warn
        raise ValueError(f"{path} is in scaled fp8, which has no gradient: use the bf16 or fp16 file of this model")
    if model.latent_format.latent_dimensions != 2:
        raise ValueError(f"{path} is a {models.architecture}, which has no latents of two dimensions, as pictures have")
    latent = torch.zeros(1, model.latent_format.latent_channels, 8, 8)
    if model.concat_cond(noise=latent, latent_image=latent, device=latent.device) is not None:
        raise ValueError(f"{path} is for inpainting or editing: only a model that starts from noise can be distilled")


def load_vae(path: Path, models: Models) -> Any:
    """A VAE file, in float32. Raises ValueError for one that ComfyUI does not know, or of another latent space."""
    import comfy.sd
    import comfy.utils

    try:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path)))
        vae.throw_exception_if_invalid()
    except Exception as error:
        raise ValueError(f"vae {path} is not a VAE that ComfyUI can load: {error}") from error
    wanted = models.model.model.latent_format.latent_channels
    if vae.latent_channels != wanted:
        raise ValueError(f"vae {path} has {vae.latent_channels} channels, the model's latents have {wanted}")
    return vae
