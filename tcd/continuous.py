"""Schedules of continuous time: rectified flow, and variance-exploding as in EDM."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import Level, Schedule, Time, as_time, number


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """x_t = (1 - sigma) x0 + sigma eps for t in [0, 1], with sigma = shift t / (1 + (shift - 1) t).

    The time is the unshifted one, so that gamma means the same at every shift.

    >>> round(RectifiedFlow(shift=3.0).sigma(0.5).item(), 6)
    0.75
    """

    shift: float = 1.0

    clean = 0.0
    first = 1e-3
    last = 1.0

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ValueError(f"shift must be positive, got {self.shift}")

    @classmethod
    def from_sigmas(cls, sigmas: Tensor) -> "RectifiedFlow":
        """From noise levels [N] at the times 1/N, 2/N .. 1, as ComfyUI's tables hold them: the shift is read off.

        Raises ValueError for levels of another form than a shift's.

        >>> RectifiedFlow.from_sigmas(RectifiedFlow(shift=3.0).sigma(torch.arange(1, 1001) / 1000)).shift
        3.0
        """
        table = sigmas.detach().cpu().double()
        half, quarter = (table[len(table) // part - 1] for part in (2, 4))
        found = cls(shift=round(float(half / (1 - half)), 6))
        if abs(found.sigma(0.25).double() - quarter) > 1e-4:
            raise ValueError("these noise levels are not those of a rectified flow with a shift")
        return found

    def sigma(self, t: Time) -> Tensor:
        t = as_time(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Time) -> Tensor:
        t = as_time(t)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def time_of(self, lam: Time) -> Tensor:
        """From sigma = sigmoid(-lam), with the shift undone."""
        sigma = torch.sigmoid(-as_time(lam))
        return sigma / (self.shift - (self.shift - 1) * sigma)


@dataclass(eq=False)
class VarianceExploding(Schedule):
    """x_t = x0 + sigma eps: alpha = 1, and the time is sigma itself, from 0 to sigma_max (EDM's and k-diffusion's).

    The training steps are spaced as in Karras et al. 2022, evenly in sigma^(1/rho).

    >>> VarianceExploding().time_at(torch.tensor([0, 999]))
    tensor([2.0000e-03, 8.0000e+01])
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    clean = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"sigma_min < sigma_max must be positive, got {self.sigma_min} and {self.sigma_max}")
        if not self.rho > 0:
            raise ValueError(f"rho must be positive, got {self.rho}")

    @property
    def first(self) -> float:
        return self.sigma_min

    @property
    def last(self) -> float:
        return self.sigma_max

    @property
    def highest(self) -> float:
        """There may be more noise than training saw."""
        return math.inf

    def alpha(self, t: Time) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Time) -> Tensor:
        return as_time(t)

    def levels(self, t: Time) -> tuple[Level, Level]:
        value = number(t)
        return self._levels(as_time(t)) if value is None else (1.0, value)

    def time_of(self, lam: Time) -> Tensor:
        return (-as_time(lam)).exp()

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def time_at(self, index: Time) -> Tensor:
        index, (low, high) = as_time(index), self._roots
        return ((low + index.cpu().double() * ((high - low) / (self.steps - 1))) ** self.rho).to(index)

    def index_of(self, t: Time) -> Tensor:
        t, (low, high) = as_time(t), self._roots
        return ((t.cpu().double() ** (1 / self.rho) - low) * ((self.steps - 1) / (high - low))).to(t)
