"""Optimizers and learning-rate schedules by kohya's names; `check` tells of what cannot work before any other work."""

from .checks import check
from .optimizers import NAMES, optimizer
from .schedules import SCHEDULES, go_to, schedule, warm_up

__all__ = ["NAMES", "SCHEDULES", "check", "go_to", "optimizer", "schedule", "warm_up"]
