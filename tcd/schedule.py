"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps, and the half log signal-to-noise ratio lam = log(alpha / sigma).

A schedule has `alpha`, `sigma`, `time_of`, `clean` (the time of noise-free data), `first` (the smallest noisy time) and
`last` (the noisiest); training divides the latter two's range into `steps` times. Times and results are 0-dim or [B]
tensors; look-ups are done in float64 on the CPU and returned on the caller's device, in its float dtype, in float32
at least. `levels` is what steps are computed with: numbers, where a time is one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

Time = Tensor | float
Level = Tensor | float  # alpha or sigma


def as_time(t: Time) -> Tensor:
    """A time as a tensor: float32 at least, on its own device."""
    t = torch.as_tensor(t)
    return t.to(torch.promote_types(t.dtype, torch.float32))


def number(t: Time) -> float | None:
    """A time that is one number, as such: sums on it cost no tensor operation, of which a step would need dozens.

    None for others, for one on another device, which would have to be waited for, and while torch.compile is tracing,
    whose graph cannot ask for values.
    """
    if torch.compiler.is_compiling():
        return None
    if isinstance(t, Tensor):
        return t.item() if t.ndim == 0 and t.device.type == "cpu" else None
    return float(t)


def kept(gamma: float | Tensor, s: Tensor) -> float | Tensor:
    """1 - gamma, to multiply s: rounded to its dtype once, as the reference code does, for the floor decides by it."""
    return (1 - gamma).to(s) if isinstance(gamma, Tensor) else 1 - gamma


class Schedule(ABC):
    """What every schedule shares; `alpha`, `sigma` and `time_of` are the subclass's."""

    clean: float
    first: float
    last: float
    steps: int = 1000  # a continuous schedule's is as fine as Stable Diffusion's

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """Factor of the clean data at time t, shape of t."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Standard deviation of the noise at time t, shape of t."""

    def levels(self, t: Time) -> tuple[Level, Level]:
        """(alpha(t), sigma(t)): two floats where t is one number on the CPU, two tensors of the shape of t else."""
        value = number(t)
        return self._levels(as_time(t)) if value is None else self._known_levels(value)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha(t), self.sigma(t)

    @cached_property
    def _known_levels(self) -> Callable[[float], tuple[float, float]]:
        """Sampling asks for the same few times again and again."""

        def look_up(t: float) -> tuple[float, float]:
            alpha, sigma = self._levels(torch.tensor(t, dtype=torch.float64))
            return alpha.item(), sigma.item()

        return lru_cache(maxsize=4096)(look_up)

    @abstractmethod
    def time_of(self, lam: Time) -> Tensor:
        """The time whose half log signal-to-noise ratio is lam: the inverse of `lam`."""

    def lam(self, t: Time) -> Tensor:
        """lam(t) = log(alpha(t) / sigma(t)); infinite at clean data."""
        return (self.alpha(t) / self.sigma(t)).log()

    @property
    def highest(self) -> float:
        """No time is above it."""
        return self.last

    def check(self, t: Time) -> None:
        """Raises ValueError unless all times are within the schedule."""
        value = number(t)
        if value is not None and self.clean <= value <= self.highest:
            return
        t = as_time(t)
        if not bool((inside := (t >= self.clean) & (t <= self.highest)).all()):
            wrong = t[~inside].flatten()[0].item()
            raise ValueError(f"times must be in [{self.clean:g}, {self.highest:g}], got {wrong:g}")

    def time_at(self, index: Time) -> Tensor:
        """The time of a training step: `first` at index 0, `last` at index N - 1, evenly between."""
        index = as_time(index)
        return (self.first + index.cpu().double() * ((self.last - self.first) / (self.steps - 1))).to(index)

    def index_of(self, t: Time) -> Tensor:
        """The inverse of `time_at`: where t is among the training steps 0 .. N - 1, between two of them a fraction."""
        t = as_time(t)
        return ((t.cpu().double() - self.first) * ((self.steps - 1) / (self.last - self.first))).to(t)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(d alpha / dt, d sigma / dt), by differences over one training step around t."""
        t = as_time(t)
        half, exact = (self.time_at(1.0) - self.time_at(0.0)).item() / 2, t.cpu().double()
        low, high = (exact - half).clamp(min=self.clean), (exact + half).clamp(max=self.last)
        alpha, sigma = ((f(high) - f(low)) / (high - low) for f in (self.alpha, self.sigma))
        return alpha.to(t), sigma.to(t)

    def s_prime(self, s: Time, gamma: float | Tensor) -> Tensor:
        """Where strategic stochastic sampling first goes: s' = (1 - gamma) s (Algorithm 4); gamma is [] or as s."""
        s = as_time(s)
        return kept(gamma, s) * s


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
    _table: Tensor = field(init=False, repr=False)  # the same from t = -1 on

    clean = -1.0
    first = 0.0

    @property
    def steps(self) -> int:
        return len(self.alpha_bar)

    @property
    def last(self) -> float:
        return float(self.steps - 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar]))

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
        t, table = as_time(t), self._table
        position = (t.detach().cpu().double() + 1).clamp(0, len(table) - 1)
        left = position.floor().long().clamp(max=len(table) - 2)
        return t, torch.lerp(table[left], table[left + 1], position - left)

    def time_at(self, index: Time) -> Tensor:
        return as_time(index)

    def index_of(self, t: Time) -> Tensor:
        return as_time(t)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t, alpha_bar = self._alpha_bar(t)
        return alpha_bar.sqrt().to(t), (1 - alpha_bar).sqrt().to(t)

    def alpha(self, t: Time) -> Tensor:
        return self._levels(as_time(t))[0]

    def sigma(self, t: Time) -> Tensor:
        return self._levels(as_time(t))[1]

    def lam(self, t: Time) -> Tensor:
        t, alpha_bar = self._alpha_bar(t)
        return (alpha_bar.log() - torch.log1p(-alpha_bar)).div(2).to(t)

    def time_of(self, lam: Time) -> Tensor:
        lam, table = as_time(lam), self._table
        wanted = torch.sigmoid(2 * lam.detach().cpu().double())
        right = torch.searchsorted(-table, -wanted.contiguous()).clamp(1, len(table) - 1)
        high, low = table[right - 1], table[right]
        return (right - 2 + (high - wanted) / (high - low)).clamp(max=self.last).to(lam)

    def s_prime(self, s: Time, gamma: float | Tensor) -> Tensor:
        """s' = floor((1 - gamma) s), the nearest step below, as the reference code does.

        Clean data stays clean, and gamma = 0 stays at s, also between two steps: it must add no noise.
        """
        s = as_time(s)
        return torch.where((s <= 0) | (gamma == 0), s, torch.floor(kept(gamma, s) * s))
