"""The teacher, as the options want it."""

import logging
import math
from pathlib import Path

import torch

import tcd

from ..options import Options
from .loading import load
from .models import DTYPES, Models


def set_prediction(models: Models, opts: Options) -> None:
    """Make it predict v, on a schedule down to pure noise, as asked for. Raises ValueError where it cannot be so."""
    import comfy.model_base

    model, settings = models.model.model, models.model.model.model_config.sampling_settings
    if models.kind == "flow":
        raise ValueError("v_parameterization and zero_terminal_snr are not for a flow model")
    kind = comfy.model_base.ModelType.V_PREDICTION if opts.v_parameterization else model.model_type
    settings["zsnr"] = opts.zero_terminal_snr or settings.get("zsnr", False)
    model.model_type, model.model_sampling = kind, comfy.model_base.model_sampling(model.model_config, kind)
    if settings["zsnr"] and models.kind != "v":
        raise ValueError(f"zero_terminal_snr needs a model that predicts v, this one predicts {models.kind}")


def set_shift(models: Models, shift: float) -> None:
    """Change the shift of a flow model's noise levels. Raises ValueError for another model."""
    import comfy.model_sampling

    sampling = models.sampling
    if models.kind != "flow":
        raise ValueError(f"discrete_flow_shift is for flow models, this one predicts {models.kind}")
    if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux):
        sampling.set_parameters(shift=math.log(shift))  # whose parameter is the logarithm
    else:
        sampling.set_parameters(shift=shift, multiplier=sampling.multiplier)


def merge_base_weights(models: Models, opts: Options) -> None:
    """Add base_weights to the teacher, and so to the student."""
    strengths = opts.base_weights_multiplier or (1.0,) * len(opts.base_weights)
    for path, strength in zip(opts.base_weights, strengths, strict=True):
        adapter = tcd.lora.load(path, models.unet)
        tcd.lora.merge(models.unet, adapter, strength)
        if adapter.skipped:
            logging.warning("%s: %d modules of a text encoder were left out", path, len(adapter.skipped))


def load_teacher(opts: Options) -> Models:
    """Everything that the options say of the teacher. Raises ValueError for what does not fit."""
    dtype = torch.float32 if opts.full_finetune else DTYPES[opts.mixed_precision]  # the student is a copy of its own
    path = Path(opts.pretrained_model_name_or_path)
    models = load(path, opts.checkpoint_loader, dtype, opts.vae, opts.text_encoders)
    if opts.v2 and not models.architecture.startswith("SD2"):
        raise ValueError(f"v2 says that this is an SD 2.x, ComfyUI says {models.architecture}")
    if opts.v_parameterization or opts.zero_terminal_snr:
        set_prediction(models, opts)
    if opts.discrete_flow_shift:
        set_shift(models, opts.discrete_flow_shift)
    models.sched  # noqa: B018 - raises for a model that cannot be distilled
    if opts.clip_skip:
        models.clip.clip_layer(-opts.clip_skip)
    merge_base_weights(models, opts)
    return models
