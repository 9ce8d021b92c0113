"""Trajectory Consistency Distillation (arXiv 2402.19159): sampling, solvers, losses and LoRA, on torch alone."""

from . import lora, metrics, scores
from .continuous import RectifiedFlow, VarianceExploding
from .draw import add_noise, draw_interval, draw_times, interval_times
from .embed import TargetTime, TargetTimeNet
from .loss import cm_loss, direct_cm_loss, lcm_loss, tcd_loss
from .predict import Predict, as_x0, choose, guided, guided_net, output_from
from .sample import Step, check_gamma, sample, sss_step, timesteps
from .schedule import DiscreteVP, Schedule, Time
from .solver import SOLVERS, solve
from .tcf import TCF, tcf2
from .trajectory import Trajectory

__all__ = [
    "SOLVERS",
    "TCF",
    "DiscreteVP",
    "Predict",
    "RectifiedFlow",
    "Schedule",
    "Step",
    "TargetTime",
    "TargetTimeNet",
    "Time",
    "Trajectory",
    "VarianceExploding",
    "add_noise",
    "as_x0",
    "check_gamma",
    "choose",
    "cm_loss",
    "direct_cm_loss",
    "draw_interval",
    "draw_times",
    "guided",
    "guided_net",
    "interval_times",
    "lcm_loss",
    "lora",
    "metrics",
    "output_from",
    "sample",
    "scores",
    "solve",
    "sss_step",
    "tcd_loss",
    "tcf2",
    "timesteps",
]
