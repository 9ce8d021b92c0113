"""What a step of training draws: times, and noised data."""

import torch
from torch import Tensor

from .predict import combine
from .schedule import Schedule, Time


def add_noise(sched: Schedule, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
    """x_t = alpha_t x0 + sigma_t noise."""
    alpha, sigma = sched.levels(t)
    return combine((alpha, x0), (sigma, noise))


def check_range(sched: Schedule, between: tuple[int, int] | None) -> tuple[int, int]:
    """Training steps [low, high), all by default. Raises ValueError for none, and for others than the schedule has."""
    low, high = between or (0, sched.steps)
    if not 0 <= low < high <= sched.steps:
        raise ValueError(f"training steps must be a range within [0, {sched.steps}), got [{low}, {high})")
    return low, high


def draw_times(
    batch: int,
    sched: Schedule,
    k: int = 20,
    generator: torch.Generator | None = None,
    ends: int = 1,
    between: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(t, n, m) of Algorithm 1 with t = t_{n+k}: n uniform below N - k, m uniform in [0, n]; each [batch], float32.

    Drawn among the schedule's N training steps, counted from 0. With `ends` > 1, m is [batch, ends]: several for each
    n. `between` (low, high) draws only those t that are steps from low up to, but not, high. Raises ValueError unless
    1 <= k < N, ends >= 1, and there is such a t.
    """
    if not 1 <= k < sched.steps:
        raise ValueError(f"k must be in [1, {sched.steps - 1}], got {k}")
    if ends < 1:
        raise ValueError(f"ends must be at least 1, got {ends}")
    low, high = check_range(sched, between)
    if high <= k:
        raise ValueError(f"no t = t_(n+{k}) is below training step {high}")
    device = generator.device if generator is not None else None
    n = torch.randint(max(0, low - k), high - k, (batch,), generator=generator, device=device)
    of_m = n if ends == 1 else n[:, None].expand(batch, ends)
    m = (torch.rand(of_m.shape, generator=generator, device=device) * (of_m + 1)).long().minimum(of_m)
    t, n, m = (sched.time_at(index.float()) for index in (n + k, n, m))
    return t, n, m


def interval_times(sched: Schedule, intervals: int) -> Tensor:
    """0 = t_0 < t_1 < ... < t_N = T of the second paper, [N + 1]: clean data, then every (steps / N)-th training step.

    Raises ValueError unless `intervals` divides the schedule's steps.

    >>> from tcd import DiscreteVP
    >>> interval_times(DiscreteVP.scaled_linear(), 5)
    tensor([ -1., 199., 399., 599., 799., 999.])
    """
    if not 1 <= intervals <= sched.steps or sched.steps % intervals:
        raise ValueError(f"intervals must divide the schedule's {sched.steps} steps, got {intervals}")
    noisy = sched.time_at(torch.arange(1, intervals + 1) * (sched.steps // intervals) - 1.0)
    return torch.cat([noisy.new_tensor([sched.clean]), noisy])


def draw_interval(
    batch: int,
    sched: Schedule,
    intervals: int = 50,
    generator: torch.Generator | None = None,
    between: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """(t, n): both ends of a random one of the N intervals, n = t_{i-1} clean at the lowest; each [batch], float32.

    `between` (low, high) draws only those whose t is a training step from low up to, but not, high. Raises ValueError
    where there is none, and unless `intervals` divides the schedule's steps.
    """
    times, (low, high) = interval_times(sched, intervals), check_range(sched, between)
    width = sched.steps // intervals
    first, last = -(-(low + 1) // width), high // width  # interval i ends at training step i width - 1
    if first > last:
        raise ValueError(f"none of the {intervals} intervals ends within training steps [{low}, {high})")
    device = generator.device if generator is not None else None
    i = torch.randint(first, last + 1, (batch,), generator=generator, device=device)
    return times.to(i.device)[i], times.to(i.device)[i - 1]
