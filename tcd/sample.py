"""Sampling: the time grid, one step of strategic stochastic sampling, and the whole loop as a generator of steps."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .predict import Predict, choose, combine
from .schedule import Schedule, Time, as_time
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


def timesteps(sched: Schedule, n: int, k: int = 20, strength: float = 1.0) -> Tensor:
    """n times, noisiest first, out of the grid k - 1, 2k - 1, ... of training steps on which the student was distilled.

    k = 20 is the distillation grid, k = 1 the dense one. `strength` < 1 cuts the grid to its lower part, for image to
    image: start from `add_noise(sched, x0, noise, times[0])`. Shape [n], float32. Raises ValueError where the grid has
    fewer than n times.

    >>> from tcd import DiscreteVP
    >>> timesteps(DiscreteVP.scaled_linear(), 4)
    tensor([999., 759., 499., 259.])
    """
    if not 1 <= k <= sched.steps:
        raise ValueError(f"k must be in [1, {sched.steps}], got {k}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength:g}")
    size = int(sched.steps // k * strength)
    if not 1 <= n <= size:
        part = "" if strength == 1 else f"the lower {strength:g} of "
        raise ValueError(f"n must be in [1, {size}] on {part}a grid of {sched.steps} // {k} times, got {n}")
    grid = np.arange(1, size + 1)[::-1] * k - 1
    chosen = grid[np.floor(np.linspace(0, size, n, endpoint=False)).astype(int)]
    return sched.time_at(torch.from_numpy(chosen.astype(np.float32)))


def check_gamma(gamma: Gamma, steps: int) -> list[float]:
    """One gamma per step. Raises ValueError unless there is one, or `steps` of them, all in [0, 1]."""
    one = isinstance(gamma, float | int)  # kept out of tensors, so that torch.compile sees a constant
    values = [float(gamma)] if one else torch.as_tensor(gamma, dtype=torch.float64).flatten().tolist()
    if len(values) not in (1, steps):
        raise ValueError(f"gamma must be one number or one for each of the {steps} steps, got {len(values)}")
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {value:g}")
    return values * (steps if len(values) == 1 else 1)


def ctm_s_prime(sched: Schedule, s: Tensor, gamma: Tensor) -> Tensor:
    """Where CTM's gamma-sampling first goes (Kim et al. 2023; appendix A): sigma / alpha falls by sqrt(1 - gamma^2).

    The noise then added is gamma of sigma / alpha at s. For comparison with s' = (1 - gamma) s.
    """
    return sched.time_of(sched.lam(s) - torch.log1p(-gamma.square()).to(s) / 2)


RULES: dict[str, Callable[[Schedule, Tensor, Tensor], Tensor]] = {
    "sss": lambda sched, s, gamma: sched.s_prime(s, gamma),
    "ctm": ctm_s_prime,
}


def diffuse(sched: Schedule, x: Tensor, s_prime: Time, s: Time, noise: Tensor) -> Tensor:
    """Add noise to go from s' up to s (eq. 35):

        x_s = (alpha_s / alpha_s') x + sqrt(sigma_s^2 - (alpha_s / alpha_s')^2 sigma_s'^2) noise

    For a variance-preserving schedule the root is the paper's sqrt(1 - alpha_s^2 / alpha_s'^2).
    """
    (alpha_s, sigma_s), (alpha_s_prime, sigma_s_prime) = sched.levels(s), sched.levels(s_prime)
    ratio = alpha_s / alpha_s_prime
    variance = sigma_s**2 - (ratio * sigma_s_prime) ** 2
    std = variance.clamp(min=0).sqrt() if isinstance(variance, Tensor) else max(variance, 0.0) ** 0.5
    return combine((ratio, x), (std, noise.to(x.device)))


def check_state(what: str, x: Tensor, like: Tensor | None = None) -> None:
    """Raises ValueError unless x is a float tensor [B, C, ...], of the shape of `like`."""
    if not x.is_floating_point() or x.ndim < 2:
        raise ValueError(f"{what} must be a float tensor [B, C, ...], got {x.dtype} of shape {tuple(x.shape)}")
    if like is not None and x.shape != like.shape:
        raise ValueError(f"{what} must have the shape of x, {tuple(like.shape)}; got {tuple(x.shape)}")


def take_step(
    predict: Predict,
    sched: Schedule,
    x: Tensor,
    t: Tensor,
    s_prime: Tensor,
    s: Tensor,
    noise: Callable[[Tensor], Tensor] | None,
    tcf: str = "1",
    i: int = 0,
) -> Step:
    """Denoise from t to s' by the TCF, then diffuse up to s by `noise(s)`, unless that is None."""
    seen: list[Tensor] = []

    def watched(x: Tensor, t: Time, s: Time | None = None) -> Tensor:
        seen[:] = [predict(x, t, s)]
        check_state("the prediction", seen[0], x)
        return seen[0]

    x_s_prime = TCF[tcf](watched, sched, x, t, s_prime)
    x_s = x_s_prime if noise is None else diffuse(sched, x_s_prime, s_prime, s, noise(s))
    return Step(i, t, s_prime, s, x, seen[0], x_s_prime, x_s)


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
    x and noise are [B, C, ...]; t and s 0-dim or [B]. Raises ValueError for gamma outside [0, 1], times outside the
    schedule, an unknown tcf, or noise of another shape, or that is needed and missing.
    """
    (gamma,) = check_gamma(gamma, 1)
    choose(TCF, "tcf", tcf)
    check_state("x", x)
    if not torch.compiler.is_compiling():  # whose graph cannot ask for values
        for time in (t, s):
            sched.check(time)
    t, s = as_time(t), as_time(s)
    if noise is None and gamma > 0 and bool((s > sched.clean).any()):
        raise ValueError(f"gamma {gamma:g} adds noise: pass `noise` of the shape of x, {tuple(x.shape)}")
    if noise is not None:
        check_state("noise", noise, x)
    if noise is None or gamma == 0:
        return take_step(predict, sched, x, t, s, s, None, tcf).x_s
    given = noise
    return take_step(predict, sched, x, t, sched.s_prime(s, gamma), s, lambda s: given, tcf).x_s


def sample(
    predict: Predict,
    sched: Schedule,
    x: Tensor,
    times: Tensor,
    gamma: Gamma = 0.3,
    tcf: str = "1",
    generator: torch.Generator | None = None,
    end: str | Time = "x0",
    rule: str = "sss",
    noise: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Step]:
    """Strategic stochastic sampling (Algorithm 4) as a generator of `Step`s; the last step's `x_s` is the sample.

    x [B, C, ...] is the state at times[0]; times [n] decrease. gamma is a number or one per step. `end` is where the
    last step lands: "x0" the clean prediction (Algorithm 4, ComfyUI), "t0" the schedule's smallest noise level
    (diffusers), or a time, from which another call may go on. `rule` says where gamma sends a step first: "sss" is
    s' = (1 - gamma) s, "ctm" CTM's gamma-sampling. The noise comes from `generator`, or from `noise(s)`, which gives
    that of the way up to s, of the shape of x; gamma = 0 draws none, nor does the last step to clean data or "t0".

    Everything is checked before the first evaluation. Raises ValueError, also where a prediction is not finite.
    """
    check_state("x", x)
    times, targets = check_times(sched, times, end)
    gammas = check_gamma(gamma, len(times))
    if isinstance(end, str) or float(targets[-1]) <= sched.clean:
        gammas[-1] = 0.0  # the end of the trajectory: nothing follows that could remove the noise again
    choose(TCF, "tcf", tcf)
    go_to = choose(RULES, "rule", rule)
    s_primes = go_to(sched, targets, torch.tensor(gammas, dtype=torch.float64)) if any(gammas) else targets

    def standard(s: Tensor) -> Tensor:
        device = generator.device if generator is not None else x.device
        return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)

    def drawn(s: Tensor) -> Tensor:
        given = (noise or standard)(s)
        check_state("the noise", given, x)
        return given

    def steps(x: Tensor) -> Iterator[Step]:
        for i, (t, s, gamma) in enumerate(zip(times, targets, gammas, strict=True)):
            s_prime, put_back = (s_primes[i], drawn) if gamma > 0 else (s, None)
            step = take_step(predict, sched, x, t, s_prime, s, put_back, tcf, i)
            check_finite(step)
            yield step
            x = step.x_s

    return steps(x)


ENDS = {"x0": "clean", "t0": "first"}  # name -> the schedule's time of it


def check_times(sched: Schedule, times: Tensor, end: str | Time) -> tuple[Tensor, Tensor]:
    """(where every step starts [n], where it goes [n]). Raises ValueError unless they fall, within the schedule."""
    if isinstance(end, str):
        if end not in ENDS:
            raise ValueError(f"end must be x0, t0 or a time; got {end!r}")
        end = getattr(sched, ENDS[end])
    times = as_time(times).flatten()
    values = [*times.tolist(), float(end)]
    if len(values) < 2 or not all(after < before for before, after in pairwise(values)):  # so put, it also refuses nan
        raise ValueError(f"times must decrease down to the end, got {values[:-1]} and then {values[-1]:g}")
    sched.check(values[0])
    sched.check(values[-1])
    return times, torch.tensor(values[1:], dtype=times.dtype, device=times.device)


def check_finite(step: Step) -> None:
    """Raises ValueError where the network gave nan or infinity: one sum tells, as both survive it."""
    if not math.isfinite(step.x0.sum(dtype=torch.promote_types(step.x0.dtype, torch.float32)).item()):
        raise ValueError(f"step {step.i}: the network's prediction at t = {step.t.item():g} is not finite")
