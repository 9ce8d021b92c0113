"""Trajectory Consistency Distillation (arXiv 2402.19159): sampling, solvers, losses and LoRA, on torch alone."""

from . import lora, metrics
from .loss import add_noise, draw_times, tcd_loss
from .predict import Predict, as_x0, choose, guided
from .sample import Step, check_gamma, sample, sss_step, timesteps
from .schedule import DiscreteVP, RectifiedFlow, Schedule
from .solver import SOLVERS
from .tcf import TCF
from .trajectory import Trajectory

__all__ = [
    "SOLVERS",
    "TCF",
    "DiscreteVP",
    "Predict",
    "RectifiedFlow",
    "Schedule",
    "Step",
    "Trajectory",
    "add_noise",
    "as_x0",
    "check_gamma",
    "choose",
    "draw_times",
    "guided",
    "lora",
    "metrics",
    "sample",
    "sss_step",
    "tcd_loss",
    "timesteps",
]
