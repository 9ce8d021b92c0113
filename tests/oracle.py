"""Data N(mu, c^2), of which everything is known: the exact clean prediction and the exact probability-flow path.

With x_t = alpha_t x0 + sigma_t eps, the marginal at t is N(alpha_t mu, std_t^2), std_t^2 = alpha_t^2 c^2 + sigma_t^2,
and the path keeps a point at the same number of standard deviations from the mean. All in float64, for any schedule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

import tcd

# Global order of accuracy of every step function, measured against `Gaussian.path`. A new one states its own here.
ORDER = {"1": 1, "2": 2, "s+": 1, "ddim": 1, "euler": 1, "heun": 2, "dpmpp_2s": 2}

# What an ideal network of each kind says, from its definition. v is of the state scaled to unit variance.
OUTPUT: dict[str, Callable[..., Tensor]] = {
    "eps": lambda alpha, sigma, x0, eps: eps,
    "v": lambda alpha, sigma, x0, eps: (alpha * eps - sigma * x0) / (alpha**2 + sigma**2) ** 0.5,
    "x0": lambda alpha, sigma, x0, eps: x0,
    "flow": lambda alpha, sigma, x0, eps: eps - x0,
}


SCHEDULES: dict[str, tcd.Schedule] = {
    "scaled_linear": tcd.DiscreteVP.scaled_linear(),
    "linear": tcd.DiscreteVP.linear(),
    "cosine": tcd.DiscreteVP.cosine(),
    "zero_snr": tcd.DiscreteVP.scaled_linear(zero_terminal_snr=True),
    "flow": tcd.RectifiedFlow(),
    "flow_shift_3": tcd.RectifiedFlow(shift=3.0),
    "exploding": tcd.VarianceExploding(0.03, 14.5),
}


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent dimensions with mean `mu` and standard deviation `c`: numbers, or tensors that broadcast to x."""

    sched: tcd.Schedule
    mu: float | Tensor = 0.4
    c: float | Tensor = 0.7

    def at(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma and the marginal's standard deviation at t (0-dim or [B]), shaped to multiply x."""
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = (f(t).reshape(-1, *[1] * (x.ndim - 1)) for f in (self.sched.alpha, self.sched.sigma))
        return alpha, sigma, (alpha**2 * self.c**2 + sigma**2).sqrt()

    def x0(self, x: Tensor, t: Tensor | float, s: Tensor | float | None = None) -> Tensor:
        """The exact clean prediction E[x0 | x_t = x]: what a perfect teacher says."""
        alpha, _, std = self.at(t, x)
        return self.mu + alpha * self.c**2 / std**2 * (x - alpha * self.mu)

    def path(self, x: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """Where the exact probability-flow path through (x, t) is at time s."""
        alpha_t, _, std_t = self.at(t, x)
        alpha_s, _, std_s = self.at(s, x)
        return alpha_s * self.mu + (x - alpha_t * self.mu) * std_s / std_t

    def student(self, x: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """The prediction with which the step of eq. 21 from t to s is exact: what a perfect TCF(S+) says (eq. 24)."""
        (alpha_t, sigma_t, _), (alpha_s, sigma_s, _) = self.at(t, x), self.at(s, x)
        r = sigma_s / sigma_t
        weight = alpha_s - alpha_t * r
        return torch.where(weight == 0, self.x0(x, t), (self.path(x, t, s) - r * x) / weight)

    def net(self, kind: str) -> Callable[[Tensor, Tensor], Tensor]:
        """A perfect network of that kind, in the dtype of x."""

        def net(x: Tensor, t: Tensor) -> Tensor:
            (alpha, sigma, _), x0 = self.at(t, x), self.x0(x, t)
            return OUTPUT[kind](alpha, sigma, x0, (x - alpha * x0) / sigma).to(x.dtype)

        return net

    def draw(self, t: Tensor | float, shape: tuple[int, ...], seed: int = 0) -> Tensor:
        """Samples of the marginal at t."""
        z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        alpha, _, std = self.at(t, z)
        return alpha * self.mu + std * z


def self_consistent(sched: tcd.Schedule, q: float = 0.5) -> Callable[..., Tensor]:
    """A prediction that is constant along its own path, so that every step of any order is exact (eq. 18).

    x0 = x / (alpha + q sigma) says eps = q x0, and with both fixed x stays on that ray.
    """

    def predict(x: Tensor, t: Tensor | float, s: Tensor | float | None = None) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.promote_types(x.dtype, torch.float32))
        return x / (sched.alpha(t) + q * sched.sigma(t)).to(x).reshape(-1, *[1] * (x.ndim - 1))

    return predict


def lam_grid(sched: tcd.Schedule, n: int) -> Tensor:
    """n + 1 float64 times from 98% to 2% of the schedule, evenly spaced in lam."""
    ends = torch.tensor([0.98, 0.02], dtype=torch.float64) * sched.last
    high, low = sched.lam(ends).tolist()
    return sched.time_of(torch.linspace(high, low, n + 1, dtype=torch.float64))


def measured_orders(step: Callable, sched: tcd.Schedule, n: int = 32) -> list[float]:
    """log2 of how much the error at the end of the path falls when n steps become 2n, and 2n become 4n."""
    mu, c = torch.tensor([[0.4, -1.0], [0.7, 0.2]], dtype=torch.float64)
    data = Gaussian(sched, mu, c)
    errors = []
    for count in (n, 2 * n, 4 * n):
        times = lam_grid(sched, count)
        x = start = data.draw(times[0], (3, 2))
        for t, s in pairwise(times):
            x = step(data.x0, sched, x, t, s)
        errors.append((x - data.path(start, times[0], times[-1])).abs().max())
    return [torch.log2(coarse / fine).item() for coarse, fine in pairwise(errors)]
