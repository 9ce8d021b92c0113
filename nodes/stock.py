"""Opt-in: `tcd` among the samplers and schedulers of ComfyUI's own nodes, such as KSampler.

The lists are ComfyUI's and global, so it is done only where the setting "TCD.StockNames" of the front end asks for it,
when ComfyUI starts.
"""

import json
import logging
from functools import partial
from pathlib import Path

import comfy.samplers as host
import folder_paths
from comfy.k_diffusion import sampling
from torch import Tensor

from . import adapt
from .inputs import GRIDS
from .sampler import sample_tcd

SETTING = "TCD.StockNames"
# Stock samplers have no options, so each gamma has a name; web/js/stock.js shows them as a tooltip.
PRESETS = {"tcd": 0.3, "tcd_smooth": 0.0, "tcd_detail": 0.6}
SCHEDULER = "tcd"


def asked_for() -> bool:
    """Whether a user has switched the setting on."""
    for file in Path(folder_paths.get_user_directory()).glob("*/comfy.settings.json"):
        try:
            if json.loads(file.read_text(encoding="utf-8")).get(SETTING) is True:
                return True
        except (OSError, ValueError, AttributeError) as error:
            logging.warning("TCD: %s cannot be read: %s", file, error)
    return False


def noise_levels(model_sampling, steps: int) -> Tensor:
    """The scheduler: the distillation grid, or the dense one for more steps than that has."""
    schedule = adapt.schedule_of(model_sampling)
    fits = steps <= schedule.steps // GRIDS["distillation"]
    return adapt.sigmas_of(schedule, steps, 1.0, GRIDS["distillation" if fits else "dense"])


def register() -> None:
    """Add the names to ComfyUI's lists, once."""
    for name, gamma in PRESETS.items():
        setattr(sampling, f"sample_{name}", partial(sample_tcd, gamma=gamma))
        if name not in host.SAMPLER_NAMES:
            host.SAMPLER_NAMES.append(name)
    host.SCHEDULER_HANDLERS[SCHEDULER] = host.SchedulerHandler(noise_levels)
    if SCHEDULER not in host.SCHEDULER_NAMES:
        host.SCHEDULER_NAMES.append(SCHEDULER)
