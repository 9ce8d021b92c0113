"""Trajectory consistency functions f(x_t, t) -> x_s: the exponential-integrator step, at first and second order."""

import torch
from torch import Tensor

from .predict import Predict, combine
from .schedule import Level, Schedule, Time, as_time

PURE_NOISE = -7.0  # lam where the data is a thousandth of the noise


def transfer(sched: Schedule, x: Tensor, x0: Tensor, t: Time, s: Time) -> Tensor:
    """Move x from time t to s along a given clean prediction x0, which is then exact:

        x_s = r x_t + (alpha_s - alpha_t r) x0,   r = sigma_s / sigma_t              (eq. 21, without logarithms)

    x and x0 are [B, C, ...], t and s 0-dim or [B]. s = t gives x back (eq. 27); clean s gives x0.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = sched.levels(t), sched.levels(s)
    r = ratio(sigma_s, sigma_t)
    return combine((r, x), (alpha_s - alpha_t * r, x0))


def ratio(sigma_s: Level, sigma_t: Level) -> Level:
    """sigma_s / sigma_t, and 1 where there is no noise at t: clean data can only stay."""
    if isinstance(sigma_t, Tensor):
        return torch.where(sigma_t > 0, sigma_s / sigma_t, 1.0)
    return sigma_s / sigma_t if sigma_t > 0 else 1.0


def tcf1(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time) -> Tensor:
    """TCF(1), eq. 21: the prediction at t holds all the way to s. One evaluation; local error O(h^2)."""
    return transfer(sched, x, predict(x, t, s), t, s)


def between(sched: Schedule, t: Time, s: Time, r: float) -> Tensor:
    """u, the part r of the way from t to s in lam (r = 1/2: the midpoint), and never outside of them.

    The paper's u := t_lambda(lam_s + lam_t) lacks a division by two. Clean s has an infinite lam: the schedule's
    smallest noise level stands in for it. Pure noise (lam = -inf) is stood in for by PURE_NOISE.
    """
    t, s = as_time(t), as_time(s)
    lowest_noise = sched.lam(sched.first).clamp(min=PURE_NOISE)
    lam_t, lam_s = (torch.minimum(sched.lam(time).clamp(min=PURE_NOISE), lowest_noise.to(time)) for time in (t, s))
    return sched.time_of(lam_t + r * (lam_s - lam_t)).clamp(torch.minimum(t, s), torch.maximum(t, s))


def tcf2(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time, r: float = 0.5) -> Tensor:
    """TCF(2), eq. 22: a weighted mean of the predictions at t and at u, r of the way to s in lam:

        x0 = (1 - 1/2r) x0(x_t, t) + 1/2r x0(x_u, u),   r in (0, 1)

    At the default r = 1/2 only the midpoint's remains (DPM-Solver++(2S)). Two evaluations; local error O(h^3). Raises
    ValueError for r outside (0, 1).
    """
    if not 0 < r < 1:
        raise ValueError(f"r must be in (0, 1), got {r:g}")
    u = between(sched, t, s, r)
    at_t = predict(x, t, u)
    x0 = predict(transfer(sched, x, at_t, t, u), u, s)
    if r != 0.5:
        late = torch.tensor(1 / (2 * r), dtype=torch.float64)
        x0 = combine((1 - late, at_t), (late, x0))
    return transfer(sched, x, x0, t, s)


# TCF(S+), eq. 24: the same step, with a network that knows s, predict(x, t, s), and so may be exact at any distance.
tcf_splus = tcf1

TCF = {"1": tcf1, "2": tcf2, "s+": tcf_splus}
