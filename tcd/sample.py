"""Sampling: the time grid, one step of strategic stochastic sampling, and the whole loop as a generator of steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .predict import Predict, choose, expand
from .schedule import DiscreteVP, Schedule, Time, as_time
from .tcf import TCF

Gamma = float | Sequence[float] | Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One step t -> s' -> s of the trajectory. Times are 0-dim, states [B, C, ...] of the caller's dtype.

    `x0` is the clean prediction that the step used: the one at t for TCF(1), the midpoint's for TCF(2).
    """

    i: int
    t: Tensor
    s_prime: Tensor
    s: Tensor
    x_t: Tensor
    x0: Tensor
    x_s_prime: Tensor
    x_s: Tensor


def timesteps(sched: DiscreteVP, n: int, k: int = 20) -> Tensor:
    """n times, noisiest first, out of the grid k - 1, 2k - 1, ... on which the student was distilled.

    k = 20 is the distillation grid, k = 1 the dense one. Shape [n], float32. Raises ValueError where the grid has
    fewer than n times.

    >>> timesteps(DiscreteVP.scaled_linear(), 4)
    tensor([999., 759., 499., 259.])
    """
    steps = int(sched.last) + 1
    if not 1 <= k <= steps:
        raise ValueError(f"k must be in [1, {steps}], got {k}")
    size = steps // k
    if not 1 <= n <= size:
        raise ValueError(f"n must be in [1, {size}] on a grid of {steps} // {k} times, got {n}")
    grid = np.arange(1, size + 1)[::-1] * k - 1
    return torch.from_numpy(grid[np.floor(np.linspace(0, size, n, endpoint=False)).astype(int)].astype(np.float32))


def check_gamma(gamma: Gamma, steps: int) -> list[float]:
    """One gamma per step. Raises ValueError unless there is one, or `steps` of them, all in [0, 1]."""
    values = torch.as_tensor(gamma, dtype=torch.float64).flatten().tolist()
    if len(values) not in (1, steps):
        raise ValueError(f"gamma must be one number or one for each of the {steps} steps, got {len(values)}")
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {value:g}")
    return values * (steps if len(values) == 1 else 1)


def diffuse(sched: Schedule, x: Tensor, s_prime: Time, s: Time, noise: Tensor) -> Tensor:
    """Add noise to go from s' up to s (eq. 35):

        x_s = (alpha_s / alpha_s') x + sqrt(sigma_s^2 - (alpha_s / alpha_s')^2 sigma_s'^2) noise

    For a variance-preserving schedule the root is the paper's sqrt(1 - alpha_s^2 / alpha_s'^2).
    """
    ratio = sched.alpha(s) / sched.alpha(s_prime)
    std = (sched.sigma(s).square() - (ratio * sched.sigma(s_prime)).square()).clamp(min=0).sqrt()
    return (expand(ratio, x) * x + expand(std, x) * noise.to(x.device)).to(x.dtype)


def take_step(
    predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time, gamma: float, draw: Callable[[], Tensor], tcf: str
) -> Step:
    """Denoise from t to s' by the TCF, then diffuse up to s; `draw` is called only where noise is added."""
    t, s = as_time(t), as_time(s)
    s_prime = sched.s_prime(s, gamma)
    seen: list[Tensor] = []

    def watched(x: Tensor, t: Time, s: Time | None = None) -> Tensor:
        seen.append(predict(x, t, s))
        return seen[-1]

    x_s_prime = choose(TCF, "tcf", tcf)(watched, sched, x, t, s_prime)
    x_s = x_s_prime if bool((s_prime == s).all()) else diffuse(sched, x_s_prime, s_prime, s, draw())
    return Step(0, t, s_prime, s, x, seen[-1], x_s_prime, x_s)


def sss_step(
    predict: Predict,
    sched: Schedule,
    x: Tensor,
    t: Time,
    s: Time,
    gamma: float = 0.3,
    noise: Tensor | None = None,
    tcf: str = "1",
) -> Tensor:
    """One iteration of strategic stochastic sampling (Algorithm 4): t -> s' = (1 - gamma) s -> s.

    gamma = 0 is deterministic and needs no noise; gamma = 1 is multistep consistency sampling (Algorithm 3).
    x and noise are [B, C, ...]; t and s 0-dim or [B]. Raises ValueError for gamma outside [0, 1], an unknown tcf,
    or noise that is needed and missing.
    """
    (gamma,) = check_gamma(gamma, 1)

    def draw() -> Tensor:
        if noise is None:
            raise ValueError(f"gamma {gamma:g} adds noise: pass `noise` of the shape of x, {tuple(x.shape)}")
        return noise

    return take_step(predict, sched, x, t, s, gamma, draw, tcf).x_s


def sample(
    predict: Predict,
    sched: Schedule,
    x: Tensor,
    times: Tensor,
    gamma: Gamma = 0.3,
    tcf: str = "1",
    generator: torch.Generator | None = None,
    end: str | Time = "x0",
) -> Iterator[Step]:
    """Strategic stochastic sampling (Algorithm 4) as a generator of `Step`s; the last step's `x_s` is the sample.

    x [B, C, ...] is the state at times[0]; times [n] decrease. gamma is a number or one per step. `end` is where the
    last step lands: "x0" the clean prediction (Algorithm 4, ComfyUI), "t0" the schedule's smallest noise level
    (diffusers), or a time, from which another call may go on. The noise comes from `generator`; gamma = 0 draws none,
    nor does the last step to "x0" or "t0". Everything is checked before the first evaluation; raises ValueError.
    """
    times = as_time(times).flatten()
    ends = {"x0": sched.clean, "t0": sched.first}
    if isinstance(end, str) and end not in ends:
        raise ValueError(f"end must be x0, t0 or a time; got {end!r}")
    targets = torch.cat([times[1:], times.new_tensor([float(ends[end] if isinstance(end, str) else end)])])
    if len(times) == 0 or not bool((targets < times).all()):  # so put, it also refuses nan
        raise ValueError(f"times must decrease down to the end, got {times.tolist()} and then {targets[-1].item():g}")
    gammas = check_gamma(gamma, len(times))
    if isinstance(end, str):
        gammas[-1] = 0.0  # the end of the trajectory: nothing follows that could remove the noise again
    choose(TCF, "tcf", tcf)

    def draw() -> Tensor:
        device = generator.device if generator is not None else x.device
        return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)

    def steps(x: Tensor) -> Iterator[Step]:
        for i, (t, s) in enumerate(zip(times, targets, strict=True)):
            step = take_step(predict, sched, x, t, s, gammas[i], draw, tcf)
            yield replace(step, i=i)
            x = step.x_s

    return steps(x)
