"""Latents from the parts: the teacher's by a solver, the student's by strategic stochastic sampling.

Both begin with pure noise, which as it is stands for the state at the schedule's noisiest time, as in ComfyUI and
diffusers: there the noise has a variance of 1, or a few thousandths less.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import tcd

from . import host
from .draws import generator
from .host import Cond, Models, Size
from .network import Parts, evaluating


def initial_noise(models: Models, size: tuple[int, int], seed: int) -> Tensor:
    """Noise [1, C, h, w] for a picture of `size` (width, height) in pixels; what ComfyUI draws for this seed.

    In float32, on the CPU. Raises ValueError for a size of which a latent has no whole number of cells.
    """
    (width, height), cell = size, host.downscale(models)
    if width % cell or height % cell:
        raise ValueError(f"width and height must be multiples of {cell}, got {width} x {height}")
    channels = models.model.model.latent_format.latent_channels
    return torch.randn(1, channels, height // cell, width // cell, generator=torch.Generator().manual_seed(seed))


def device_of(parts: Parts) -> torch.device:
    """Where its networks compute."""
    return next(parts.net.unet.parameters()).device


@torch.no_grad()
def teacher_latents(
    parts: Parts,
    conds: Sequence[Cond],
    uncond: Cond,
    sizes: Sequence[Size],
    noise: Tensor,
    steps: int,
    solver: str,
    w: Tensor | float,
) -> Tensor:
    """Where the guided teacher takes noise [B, C, h, w] in `steps` steps of a solver; on the device of the noise.

    w is a number or [B]. Raises ValueError for an unknown solver, and for latents that are not finite.
    """
    teacher, sched = parts.teacher(conds, uncond, sizes, w), parts.sched
    x = noise.to(device_of(parts))
    made = tcd.solve(teacher, sched, x, sched.last, sched.clean, steps, solver)
    if not bool(torch.isfinite(made).all()):
        raise ValueError("the teacher's latents are not finite: try mixed_precision no or bf16")
    return made.to(noise)


def guided_student(parts: Parts, conds: Sequence[Cond], uncond: Cond, sizes: Sequence[Size], w: float) -> tcd.Predict:
    """The student's prediction; for w > 0 with guidance, at two evaluations each."""
    student = parts.student(conds, sizes)
    return tcd.guided(student, parts.student([uncond] * len(conds), sizes), w) if w else student


@torch.no_grad()
def student_latents(
    parts: Parts,
    conds: Sequence[Cond],
    uncond: Cond,
    sizes: Sequence[Size],
    noise: Tensor,
    steps: int,
    gamma: float | Sequence[float],
    tcf: str,
    seeds: Sequence[int],
    w: float = 0.0,
) -> Tensor:
    """Where the student takes noise [B, C, h, w] in `steps` steps, without dropout; on the device of the noise.

    The noise that gamma puts back hangs on each sample's own seed. A distilled student needs no guidance: w = 0. Raises
    ValueError for a bad gamma, tcf or number of steps, and for predictions that are not finite.
    """
    student = guided_student(parts, conds, uncond, sizes, w)
    x, times = noise.to(device_of(parts)), tcd.timesteps(parts.sched, steps)
    with evaluating(parts.trained):
        *_, last = tcd.sample(student, parts.sched, x, times, gamma, tcf, noise=put_back(seeds, x))
    return last.x_s.to(noise)


def put_back(seeds: Sequence[int], x: Tensor) -> Callable[[Tensor], Tensor]:
    """noise(s) for `tcd.sample`, of the shape of x: each sample's from a generator of its own."""
    drawn = [generator(seed, "put back") for seed in seeds]
    return lambda s: torch.stack([torch.randn(x.shape[1:], generator=one) for one in drawn]).to(x)
