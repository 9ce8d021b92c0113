"""The only place that knows ComfyUI: where it is, how to start it as a library, how its models are loaded."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import tcd

EMBEDDED = Path(__file__).resolve().parent.parent / ".host" / "ComfyUI"


def comfyui_folder() -> Path:
    """The ComfyUI in use: COMFYUI_PATH, or the one that dev.py fetched. Raises FileNotFoundError without either."""
    folder = Path(os.environ.get("COMFYUI_PATH") or EMBEDDED)
    if not (folder / "comfy" / "sd.py").is_file():
        raise FileNotFoundError(f"no ComfyUI in {folder}: run `python3 dev.py demo` once, or set COMFYUI_PATH to yours")
    return folder


def start() -> None:
    """Make `import comfy` work in this process: on the CPU where there is no accelerator, with PyTorch attention.

    Attention is chosen when ComfyUI is imported, and its chunked variants break gradients, so it is fixed here.
    """
    if "comfy.model_management" in sys.modules:
        return
    sys.path.insert(0, str(comfyui_folder()))
    from comfy.cli_args import args

    args.cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    args.use_pytorch_cross_attention = True
    importlib.import_module("comfy.model_management")  # switches fused attention on, whose gradient is slow on CPUs
    torch.backends.cuda.enable_flash_sdp(not args.cpu)


@dataclass(frozen=True)
class Models:
    """A checkpoint as ComfyUI's own objects: MODEL (a ModelPatcher), CLIP and VAE."""

    model: Any
    clip: Any
    vae: Any

    @property
    def unet(self) -> nn.Module:
        return self.model.model.diffusion_model

    @property
    def architecture(self) -> str:
        return type(self.model.model.model_config).__name__

    @property
    def sched(self) -> tcd.DiscreteVP:
        return tcd.DiscreteVP.from_sigmas(self.model.model.model_sampling.sigmas)

    @property
    def kind(self) -> str:
        """What the network predicts, in tcd's words. Raises ValueError for a kind that cannot be distilled."""
        import comfy.model_sampling as known

        kinds = {known.EPS: "eps", known.V_PREDICTION: "v", known.X0: "x0"}
        schedule, prediction = type(self.model.model.model_sampling).__bases__
        if schedule is not known.ModelSamplingDiscrete or prediction not in kinds:
            found = f"{prediction.__name__} with {schedule.__name__}"
            raise ValueError(f"only eps, v and x0 predictions of discrete time can be distilled, not {found}")
        return kinds[prediction]


def loader_of(name: str) -> Callable:
    """The function that `checkpoint_loader` names. Raises ValueError if there is none."""
    try:
        found = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"checkpoint_loader {name!r} cannot be found: {error}") from error
    if not callable(found):
        raise ValueError(f"checkpoint_loader must be package.module:function, got {name!r}")
    return found


def load(path: Path, loader: str = "") -> Models:
    """Load a checkpoint fully, frozen, in float32. `loader` names another function than ComfyUI's own.

    Raises ValueError for a file that holds no diffusion model, or one that needs conditioning besides text.
    """
    start()
    import comfy.model_management
    import comfy.sd

    if loader:
        found = loader_of(loader)(path, dtype=torch.float32)
    else:
        try:
            found = comfy.sd.load_checkpoint_guess_config(str(path), model_options={"dtype": torch.float32})[:3]
        except Exception as error:
            raise ValueError(f"{path} is not a checkpoint that ComfyUI can load: {error}") from error
    models = Models(*found)
    if models.model is None or models.clip is None or models.vae is None:
        raise ValueError(f"{path} must hold a diffusion model, a text encoder and a VAE")
    if models.model.model.adm_channels:
        raise ValueError(f"{models.architecture} needs conditioning besides text (SDXL), which is not supported yet")
    comfy.model_management.load_models_gpu([models.model], force_full_load=True)
    models.unet.requires_grad_(False).eval()
    return models


@torch.no_grad()
def encode_text(models: Models, captions: list[str]) -> Tensor:
    """Text encoder outputs [N, L, D] in float32, as CLIPTextEncode gives them."""
    seen: dict[str, Tensor] = {}
    for text in tqdm(captions, desc="captions", unit="text", leave=False):
        if text not in seen:
            seen[text] = models.clip.encode_from_tokens(models.clip.tokenize(text)).float().cpu()
            if seen[text].shape != next(iter(seen.values())).shape:
                raise ValueError(f"this caption is longer than the text encoder takes at once: {text[:80]!r}")
    return torch.cat([seen[text] for text in captions])


@torch.no_grad()
def encode_picture(models: Models, picture: Tensor, name: object) -> Tensor:
    """A picture [H, W, 3] in [0, 1] as a latent [C, h, w] in the model's space. A NaN latent names its file."""
    latent = models.model.model.process_latent_in(models.vae.encode(picture[None]))[0].float().cpu()
    if not torch.isfinite(latent).all():
        raise ValueError(f"the VAE turned {name} into NaN: use a VAE that works in float32")
    return latent
