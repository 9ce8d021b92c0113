"""Trajectory consistency functions f(x_t, t) -> x_s: the exponential-integrator step, at first and second order."""

import torch
from torch import Tensor

from .predict import Predict, expand
from .schedule import Schedule, Time, as_time

PURE_NOISE = -7.0  # lam where the data is a thousandth of the noise


def transfer(sched: Schedule, x: Tensor, x0: Tensor, t: Time, s: Time) -> Tensor:
    """Move x from time t to s along a given clean prediction x0, which is then exact:

        x_s = r x_t + (alpha_s - alpha_t r) x0,   r = sigma_s / sigma_t              (eq. 21, without logarithms)

    x and x0 are [B, C, ...], t and s 0-dim or [B]. s = t gives x back (eq. 27); clean s gives x0.
    """
    sigma_t, sigma_s = sched.sigma(t), sched.sigma(s)
    r = torch.where(sigma_t > 0, sigma_s / sigma_t, torch.ones_like(sigma_t))
    return (expand(r, x) * x + expand(sched.alpha(s) - sched.alpha(t) * r, x) * x0).to(x.dtype)


def tcf1(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time) -> Tensor:
    """TCF(1), eq. 21: the prediction at t holds all the way to s. One evaluation; local error O(h^2)."""
    return transfer(sched, x, predict(x, t, s), t, s)


def midpoint(sched: Schedule, t: Time, s: Time) -> Tensor:
    """u, halfway between t and s in lam, and never outside of them.

    The paper's u := t_lambda(lam_s + lam_t) lacks a division by two. Clean s has an infinite lam: the schedule's
    smallest noise level stands in for it. Pure noise (lam = -inf) is stood in for by PURE_NOISE.
    """
    t, s = as_time(t), as_time(s)
    lowest_noise = sched.lam(sched.first).item()
    u = sched.time_of(sum(sched.lam(time).clamp(PURE_NOISE, lowest_noise) for time in (t, s)) / 2)
    return u.clamp(torch.minimum(t, s), torch.maximum(t, s))


def tcf2(predict: Predict, sched: Schedule, x: Tensor, t: Time, s: Time) -> Tensor:
    """TCF(2), eq. 22 with r = 1/2 (DPM-Solver++(2S)): the midpoint's prediction. Two evaluations; error O(h^3)."""
    u = midpoint(sched, t, s)
    return transfer(sched, x, predict(tcf1(predict, sched, x, t, u), u, s), t, s)


TCF = {"1": tcf1, "2": tcf2}
