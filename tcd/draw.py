"""What a step of training draws: times, and noised data."""

import torch
from torch import Tensor

from .predict import combine
from .schedule import Schedule, Time


def add_noise(sched: Schedule, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
    """x_t = alpha_t x0 + sigma_t noise."""
    alpha, sigma = sched.levels(t)
    return combine((alpha, x0), (sigma, noise))


def draw_times(
    batch: int, sched: Schedule, k: int = 20, generator: torch.Generator | None = None, ends: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """(t, n, m) of Algorithm 1 with t = t_{n+k}: n uniform below N - k, m uniform in [0, n]; each [batch], float32.

    Drawn among the schedule's N training steps, counted from 0. With `ends` > 1, m is [batch, ends]: several for each
    n. Raises ValueError unless 1 <= k < N and ends >= 1.
    """
    steps = sched.steps
    if not 1 <= k < steps:
        raise ValueError(f"k must be in [1, {steps - 1}], got {k}")
    if ends < 1:
        raise ValueError(f"ends must be at least 1, got {ends}")
    device = generator.device if generator is not None else None
    n = torch.randint(0, steps - k, (batch,), generator=generator, device=device)
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
    batch: int, sched: Schedule, intervals: int = 50, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """(t, n): both ends of a random one of the N intervals, n = t_{i-1} clean at the lowest; each [batch], float32."""
    times = interval_times(sched, intervals)
    i = torch.randint(1, intervals + 1, (batch,), generator=generator, device=generator.device if generator else None)
    return times.to(i.device)[i], times.to(i.device)[i - 1]
