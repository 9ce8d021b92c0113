"""What a run will do, in lines: what it trains, on what, how long, and in how much memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import torch

from tcd import lora

if TYPE_CHECKING:
    from .run import Run

GIB = 2**30


def lines(run: Run) -> list[str]:
    """What is trained and on what, known without a step."""
    opts, models, parts = run.opts, run.models, run.parts
    size = sum(weight.numel() for weight in parts.weights)
    keys = list(lora.state_dict(parts.adapter)) if parts.adapter else list(parts.student_net.unet.state_dict())
    what = f"LoRA of {len(parts.adapter.layers)} layers" if parts.adapter else "the whole network"
    epochs = run.steps / run.epoch_steps
    return [
        f"teacher: {models.architecture}, {models.kind}-prediction, {opts.mixed_precision} on {models.device}",
        f"student: {what}, {size:,} weights; {opts.method}"
        + (f", TCF({opts.tcf.upper()})" if opts.method == "tcd" else ""),
        f"keys: {len(keys)}, such as {keys[0]}",
        *run.dataset.lines(),
        f"steps: {run.steps:,} of {run.batch} samples on {run.workers.world} processes; {epochs:.1f} epochs",
        f"output: {run.saver.path}",
        *([f"going on from step {run.first:,}"] if run.first else []),
    ]


def peak_memory(device: torch.device) -> int:
    """Bytes that the device used at most, or that this process uses."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss


def estimate(run: Run, trial: Callable[[], object]) -> list[str]:
    """How long the run will take and how much memory, by a `trial` of a step whose gradient is thrown away."""
    trial()  # the first one also pays for what is set up once
    began = time.monotonic()
    trial()
    seconds = time.monotonic() - began
    run.optimizer.zero_grad(set_to_none=True)
    states = 2 + (run.parts.ema is not None)  # AdamW's two, and the running average
    later = states * 4 * sum(weight.numel() for weight in run.parts.weights)
    hours = (run.steps - run.first) * seconds / 3600
    where = "GPU memory" if run.models.device.type == "cuda" else "memory"
    return [
        f"time: {seconds:.2f} s a step, about {hours:.1f} hours",
        f"{where}: about {(peak_memory(run.models.device) + later) / GIB:.1f} GiB",
    ]
