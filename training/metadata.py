"""What a saved file says of itself: kohya's ss_*, modelspec.* and what TCD adds."""

import json
from pathlib import Path

from tcd import lora

from . import adapters
from .host import Models
from .options import Options

# ComfyUI's name of an architecture -> (kohya's ss_base_model_version, modelspec.architecture).
ARCHITECTURES = {
    "SD15": ("sd_v1", "stable-diffusion-v1"),
    "SD20": ("sd_v2", "stable-diffusion-v2"),
    "SDXL": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    "SD3": ("sd3", "stable-diffusion-3"),
    "Flux": ("flux1", "flux-1-dev"),
    "FluxSchnell": ("flux1", "flux-1-schnell"),
    "Lumina2": ("lumina", "lumina-2"),
}

# What a student wants to be sampled with: gamma 1 is multistep consistency sampling, which CM and its kin are made for.
GAMMA = {"tcd": 0.3, "cm": 1.0, "lcm": 1.0, "direct_cm": 1.0}
STEPS = 4


def of_kohya(models: Models, opts: Options, step: int) -> dict:
    """What kohya's trainers write, so that its tools and every host can tell what this is."""
    version, architecture = ARCHITECTURES.get(models.architecture, (models.architecture, models.architecture))
    chosen = dict(item.split("=", 1) for item in opts.network_args)
    if adapters.arguments(opts).conv_dim < 0:
        chosen |= {"conv_dim": opts.network_dim, "conv_alpha": opts.alpha}
    width, height = opts.size
    network = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": opts.network_dim,
        "ss_network_alpha": opts.alpha,
        "ss_network_dropout": opts.network_dropout or None,
        "ss_network_args": json.dumps(chosen),
    }
    return {
        "ss_base_model_version": version,
        "ss_sd_model_name": Path(opts.pretrained_model_name_or_path).name,
        **({} if opts.full_finetune else network),
        "ss_v2": str(models.architecture.startswith("SD2")),
        "ss_learning_rate": opts.learning_rate,
        "ss_lr_scheduler": opts.lr_scheduler,
        "ss_optimizer": " ".join([opts.optimizer_type, *opts.optimizer_args]),
        "ss_steps": step,
        "ss_max_train_steps": opts.max_train_steps,
        "ss_batch_size_per_device": opts.train_batch_size,
        "ss_gradient_accumulation_steps": opts.gradient_accumulation_steps,
        "ss_gradient_checkpointing": str(opts.gradient_checkpointing),
        "ss_seed": opts.seed,
        "ss_mixed_precision": opts.mixed_precision,
        "ss_resolution": f"({width}, {height})",
        "ss_zero_terminal_snr": str(opts.zero_terminal_snr),
        "ss_training_comment": opts.training_comment or None,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture + ("" if opts.full_finetune else "/lora"),
        "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
        "modelspec.title": opts.output_name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.prediction_type": {"v": "v", "eps": "epsilon"}.get(models.kind),
    }


def of_tcd(opts: Options) -> dict:
    """How it was distilled, and how to sample it; `nodes/settings.py` reads the latter."""
    grid = {"skip_steps": opts.skip_steps} if opts.method == "tcd" else {"intervals": opts.intervals}
    return {
        "tcd.method": opts.method,
        "tcd.tcf": opts.tcf,
        "tcd.solver": opts.solver,
        **{f"tcd.{name}": value for name, value in grid.items()},
        "tcd.ends": opts.ends if opts.method == "tcd" else None,
        "tcd.guidance": [opts.guidance_min, opts.guidance_max],
        "tcd.uncond": opts.uncond,
        "tcd.loss_type": opts.loss_type,
        "tcd.ema_decay": opts.ema_decay or None,
        "tcd.gamma": GAMMA[opts.method],
        "tcd.steps": STEPS,
    }


def of(models: Models, opts: Options, step: int) -> dict[str, str]:
    """All of it, every value a string."""
    return lora.metadata_of(({} if opts.no_metadata else of_kohya(models, opts, step)) | of_tcd(opts))
