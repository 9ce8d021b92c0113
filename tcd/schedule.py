"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps, and the half log signal-to-noise ratio lam = log(alpha / sigma).

A schedule is any object with `alpha`, `sigma`, `time_of`, `clean` (the time of noise-free data), `first` (the
smallest noisy time) and `last` (the noisiest). Times and results are 0-dim or [B] tensors; look-ups are done in
float64 on the CPU and returned on the caller's device, in its float dtype, in float32 at least.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

Time = Tensor | float


def as_time(t: Time) -> Tensor:
    """A time as a tensor: float32 at least, on its own device."""
    t = torch.as_tensor(t)
    return t.to(torch.promote_types(t.dtype, torch.float32))


class Schedule(ABC):
    """What every schedule shares; `alpha`, `sigma` and `time_of` are the subclass's."""

    clean: float
    first: float
    last: float

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """Factor of the clean data at time t, shape of t."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Standard deviation of the noise at time t, shape of t."""

    @abstractmethod
    def time_of(self, lam: Time) -> Tensor:
        """The time whose half log signal-to-noise ratio is lam: the inverse of `lam`."""

    def lam(self, t: Time) -> Tensor:
        """lam(t) = log(alpha(t) / sigma(t)); infinite at clean data."""
        return (self.alpha(t) / self.sigma(t)).log()

    def s_prime(self, s: Time, gamma: float | Tensor) -> Tensor:
        """Where strategic stochastic sampling first goes: s' = (1 - gamma) s (Algorithm 4)."""
        return (1 - gamma) * as_time(s)


@dataclass(frozen=True, eq=False)
class DiscreteVP(Schedule):
    """Variance-preserving schedule of N discrete steps, t = 0 .. N - 1; alpha^2 + sigma^2 = 1.

    Between steps alpha_bar = alpha^2 is interpolated linearly. Clean data is t = -1: the step before the first, where
    alpha_bar = 1; t = 0 still holds a little noise (as diffusers' `set_alpha_to_one` distinguishes).

    >>> sched = DiscreteVP.scaled_linear()
    >>> round(sched.alpha(999.0).item(), 6), round(sched.sigma(999.0).item(), 6)
    (0.068265, 0.997667)
    """

    alpha_bar: Tensor  # [N], float64, decreasing

    clean = -1.0
    first = 0.0

    @property
    def last(self) -> float:
        return float(len(self.alpha_bar) - 1)

    @classmethod
    def from_betas(cls, betas: Tensor, zero_terminal_snr: bool = False) -> "DiscreteVP":
        """From per-step variances [N] in (0, 1), in the dtype that they come in (float32, as everybody's).

        With `zero_terminal_snr`, sqrt(alpha_bar) is shifted and scaled so that the last step is pure noise.
        """
        betas = torch.as_tensor(betas)
        if betas.ndim != 1 or len(betas) <= zero_terminal_snr:
            raise ValueError(f"betas must be [N], N >= {1 + zero_terminal_snr}, got shape {tuple(betas.shape)}")
        if not bool((inside := (betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must be in (0, 1), got {betas[~inside][0].item():g}")
        alpha_bar = torch.cumprod(1 - betas, 0).double()
        if zero_terminal_snr:
            root = alpha_bar.sqrt()
            alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
        return cls(alpha_bar)

    @classmethod
    def from_sigmas(cls, sigmas: Tensor) -> "DiscreteVP":
        """From variance-exploding noise levels sigma / alpha, increasing (k-diffusion's and ComfyUI's units)."""
        return cls(1 / (1 + sigmas.detach().cpu().double().square()))

    @classmethod
    def scaled_linear(
        cls, steps: int = 1000, start: float = 0.00085, end: float = 0.012, zero_terminal_snr: bool = False
    ) -> "DiscreteVP":
        """Stable Diffusion's: the square roots of the betas are linear."""
        return cls.from_betas(torch.linspace(start**0.5, end**0.5, steps) ** 2, zero_terminal_snr)

    @classmethod
    def linear(
        cls, steps: int = 1000, start: float = 1e-4, end: float = 0.02, zero_terminal_snr: bool = False
    ) -> "DiscreteVP":
        """DDPM's: the betas are linear."""
        return cls.from_betas(torch.linspace(start, end, steps), zero_terminal_snr)

    @classmethod
    def cosine(cls, steps: int = 1000, zero_terminal_snr: bool = False) -> "DiscreteVP":
        """Improved DDPM's: alpha_bar(t) follows cos^2, betas are at most 0.999."""
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return cls.from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999), zero_terminal_snr)

    def _alpha_bar(self, t: Time) -> tuple[Tensor, Tensor]:
        """(t as a tensor, alpha_bar(t) in float64 on the CPU)."""
        t = as_time(t)
        table = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar])
        position = (t.detach().cpu().double() + 1).clamp(0, len(table) - 1)
        left = position.floor().long().clamp(max=len(table) - 2)
        return t, torch.lerp(table[left], table[left + 1], position - left)

    def alpha(self, t: Time) -> Tensor:
        t, alpha_bar = self._alpha_bar(t)
        return alpha_bar.sqrt().to(t)

    def sigma(self, t: Time) -> Tensor:
        t, alpha_bar = self._alpha_bar(t)
        return (1 - alpha_bar).sqrt().to(t)

    def lam(self, t: Time) -> Tensor:
        t, alpha_bar = self._alpha_bar(t)
        return (alpha_bar.log() - torch.log1p(-alpha_bar)).div(2).to(t)

    def time_of(self, lam: Time) -> Tensor:
        lam = as_time(lam)
        wanted = torch.sigmoid(2 * lam.detach().cpu().double())
        table = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar])
        right = torch.searchsorted(-table, -wanted.contiguous()).clamp(1, len(table) - 1)
        high, low = table[right - 1], table[right]
        return (right - 2 + (high - wanted) / (high - low)).clamp(max=self.last).to(lam)

    def s_prime(self, s: Time, gamma: float | Tensor) -> Tensor:
        """s' = floor((1 - gamma) s), the nearest step below, as the reference code does.

        Clean data stays clean, and gamma = 0 stays at s, also between two steps: it must add no noise.
        """
        s = as_time(s)
        return torch.where((s <= 0) | (gamma == 0), s, torch.floor((1 - gamma) * s))


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
