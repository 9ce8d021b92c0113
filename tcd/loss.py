"""Distillation losses, and the draw of times that they need."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .predict import Predict, choose, expand
from .schedule import DiscreteVP, Schedule, Time
from .solver import SOLVERS
from .tcf import TCF


def draw_times(
    batch: int, sched: DiscreteVP, k: int = 20, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(t, n, m) of Algorithm 1 with t = t_{n+k}: n uniform below N - k, m uniform in [0, n]; each [batch], float32.

    Counted from 0, as the schedule's steps are. Raises ValueError unless 1 <= k < N.
    """
    steps = int(sched.last) + 1
    if not 1 <= k < steps:
        raise ValueError(f"k must be in [1, {steps - 1}], got {k}")
    device = generator.device if generator is not None else None
    n = torch.randint(0, steps - k, (batch,), generator=generator, device=device)
    m = (torch.rand(batch, generator=generator, device=device) * (n + 1)).long().minimum(n)
    return (n + k).float(), n.float(), m.float()


def add_noise(sched: Schedule, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
    """x_t = alpha_t x0 + sigma_t noise."""
    return (expand(sched.alpha(t), x0) * x0 + expand(sched.sigma(t), x0) * noise).to(x0.dtype)


def tcd_loss(
    student: Predict,
    target: Predict,
    teacher: Predict,
    sched: Schedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    n: Tensor,
    m: Tensor,
    tcf: str = "1",
    solver: str = "ddim",
) -> Tensor:
    """Trajectory consistency distillation (eq. 29, Algorithms 1 and 2), averaged over everything:

        || f_student(x_t, t, m) - f_target(x_n, n, m) ||^2,   x_n = Phi(x_t, t, n; teacher)

    x0 and noise are [B, C, ...]; t > n >= m are [B]. The teacher and the target are evaluated without gradient, and
    before the student, so that one network may play all three. Raises ValueError for an unknown tcf or solver.
    """
    f, phi = choose(TCF, "tcf", tcf), choose(SOLVERS, "solver", solver)
    x_t = add_noise(sched, x0, noise, t)
    with torch.no_grad():
        x_n = phi(teacher, sched, x_t, t, n)
        goal = f(target, sched, x_n, n, m)
    dtype = torch.promote_types(x0.dtype, torch.float32)
    return F.mse_loss(f(student, sched, x_t, t, m).to(dtype), goal.to(dtype))
