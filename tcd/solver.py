"""Teacher solvers Phi(x_t, t, s): one step of the empirical probability-flow ODE, in either direction.

    dx = x0 d alpha + eps d sigma,   with x0 the teacher's prediction and eps = (x - alpha x0) / sigma

which is the paper's eq. 3 for x = alpha x0 + sigma eps.
"""

from itertools import pairwise

import torch
from torch import Tensor

from .predict import Predict, choose, combine, expand
from .schedule import Schedule, Time, as_time
from .tcf import tcf1, tcf2, transfer


def per_noise(change: Tensor, sigma: Tensor) -> Tensor:
    """change / sigma, and 0 where no noise is: clean data does not tell eps."""
    return torch.where(sigma > 0, change / sigma, 0)


def euler(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time) -> Tensor:
    """x_s = x_t + (s - t) dx/dt. One evaluation; local error O((s - t)^2).

    Where alpha and sigma are linear in t (variance-exploding, unshifted flow) this is DDIM; on a variance-preserving
    schedule DDIM takes their exact change and is nearer to the path.
    """
    t, s = as_time(t), as_time(s)
    alpha, sigma = (rate * (s - t) for rate in sched.rates(t))
    noise = per_noise(sigma, sched.sigma(t))
    return combine((1 + noise, x), (alpha - sched.alpha(t) * noise, predict(x, t, s)))


def heun(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time) -> Tensor:
    """The trapezoidal rule for both integrals, the second prediction taken where DDIM lands; local error O(h^3).

        x_s = x_t + (alpha_s - alpha_t) (x0_t + x0_s) / 2 + (sigma_s - sigma_t) (eps_t + eps_s) / 2

    On variance-exploding schedules this is Karras et al.'s, on flow the textbook's. At clean s there is no noise to
    predict: there, as with Karras et al., the step is DDIM's, and the second prediction is not used.
    """
    t, s = as_time(t), as_time(s)
    at_t = predict(x, t, s)
    ahead = transfer(sched, x, at_t, t, s)
    at_s = predict(ahead, torch.where(s > sched.clean, s, sched.first), s)
    alpha, sigma = ((f(s) - f(t)) / 2 for f in (sched.alpha, sched.sigma))
    noise_t, noise_s = (per_noise(sigma, sched.sigma(time)) for time in (t, s))
    of_t, of_s = alpha - sched.alpha(t) * noise_t, alpha - sched.alpha(s) * noise_s
    landed = combine((1 + noise_t, x), (of_t, at_t), (noise_s, ahead), (of_s, at_s))
    return torch.where(expand(sched.sigma(s), x) > 0, landed, ahead)


# DDIM is the first-order exponential integrator, the very step of TCF(1), with the teacher's prediction;
# DPM-Solver++(2S) that of TCF(2).
SOLVERS = {"ddim": tcf1, "euler": euler, "heun": heun, "dpmpp_2s": tcf2}


def follow(predict: Predict, sched: Schedule, x: Tensor, path: Tensor, solver: str = "ddim") -> Tensor:
    """One solver step from each time of `path` [n] or [n, B] to the next; where two are equal, x stays as it is."""
    phi = choose(SOLVERS, "solver", solver)
    for t, s in pairwise(path):
        x = phi(predict, sched, x, t, s)
    return x


def solve(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time, steps: int, solver: str = "ddim") -> Tensor:
    """f_solver(x_t, t, s): from t to s in `steps` steps, evenly spaced among the schedule's training steps.

    x is [B, C, ...]; t and s are 0-dim or [B], s before or after t, or clean. Raises ValueError for an unknown solver
    or steps < 1.

    >>> from tcd import VarianceExploding
    >>> sched = VarianceExploding()
    >>> solve(lambda x, t, s: 0 * x, sched, torch.tensor([[80.0]]), 80.0, 2.0, steps=4)
    tensor([[2.]])
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    first, last = torch.broadcast_tensors(as_time(t), as_time(s))
    dtype = torch.promote_types(first.dtype, last.dtype)
    first, last = first.to(dtype), last.to(dtype)
    parts = torch.linspace(0, 1, steps + 1, dtype=dtype, device=first.device)[1:-1]
    between = [sched.time_at(torch.lerp(sched.index_of(first), sched.index_of(last), part)) for part in parts]
    return follow(predict, sched, x, torch.stack([first, *between, last]), solver)
