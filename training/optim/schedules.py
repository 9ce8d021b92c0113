"""The learning rate over a training, as transformers' schedules, which kohya's trainers use, give it."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import tcd

from ..options import Options

LAST_RATE = 1e-7  # where `polynomial` ends


def half_wave(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def restarts(progress: float, opts: Options) -> float:
    return half_wave(opts.lr_scheduler_num_cycles * progress % 1) if progress < 1 else 0.0


def polynomial(progress: float, opts: Options) -> float:
    last = LAST_RATE / opts.learning_rate
    return last + (1 - last) * (1 - progress) ** opts.lr_scheduler_power


# Name -> part of `learning_rate` at a progress from 0, where the warm-up is over, to 1, where the training is.
SCHEDULES: dict[str, Callable[[float, Options], float]] = {
    "constant": lambda progress, opts: 1.0,
    "constant_with_warmup": lambda progress, opts: 1.0,  # kohya's name of it where there is a warm-up
    "linear": lambda progress, opts: 1 - progress,
    "cosine": lambda progress, opts: half_wave(progress),
    "cosine_with_restarts": restarts,
    "polynomial": polynomial,
}


def warm_up(opts: Options, steps: int) -> int:
    """Steps of warm-up out of all `steps`. Raises ValueError for more than there are, or for a part of a step.

    >>> warm_up(Options(lr_warmup_steps=0.1), 200), warm_up(Options(lr_warmup_steps=7), 200)
    (20, 7)
    """
    wanted = opts.lr_warmup_steps
    if wanted < 1:
        return int(wanted * steps)
    if wanted != int(wanted):
        raise ValueError(f"lr_warmup_steps must be a whole number, or below 1 a part of all steps; got {wanted}")
    if wanted > steps:
        raise ValueError(f"lr_warmup_steps must be at most {steps}, the steps of the training; got {wanted:.0f}")
    return int(wanted)


def schedule(optimizer: Optimizer, opts: Options, steps: int) -> LambdaLR:
    """The learning rate over `steps` steps: linear warm-up from 0, then as `lr_scheduler` says.

    Call its `step` once after every step of the optimizer. It depends on nothing but the step.
    Raises ValueError for a warm-up that is too long, or a rate that is not above where `polynomial` ends.
    """
    after, warm = tcd.choose(SCHEDULES, "lr_scheduler", opts.lr_scheduler), warm_up(opts, steps)
    if after is polynomial and opts.learning_rate <= LAST_RATE:
        raise ValueError(f"learning_rate must be above {LAST_RATE}, where polynomial ends; got {opts.learning_rate}")

    def factor(step: int) -> float:
        return step / warm if step < warm else after(min(1.0, (step - warm) / max(1, steps - warm)), opts)

    return LambdaLR(optimizer, factor)


def go_to(schedule: LambdaLR, step: int) -> None:
    """Set the learning rates that the schedule has for a step: whatever came before, they follow from it alone."""
    schedule.last_epoch = step
    rates = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    for group, (rate, factor) in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * factor(step)
