"""Distillation losses: trajectory consistency, consistency, latent consistency and direct consistency.

All take predictions (`student`, `target`, `teacher`: one network may play all three; the teacher is guided by
`tcd.guided`), clean data x0 and noise [B, C, ...], and times [B]. The student comes last, and alone has a gradient.
`distance` is "l2" or "huber", or a function of the error; `weight` [B] multiplies each sample's loss.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .draw import add_noise, interval_times
from .predict import Predict, choose, combine, output_from
from .schedule import Schedule, Time, as_time
from .solver import SOLVERS
from .tcf import TCF, tcf1

HUBER = 1e-3  # where the pseudo-Huber distance turns from square to absolute, as in LCM's code
SIGMA_DATA, TIME_SCALE = 0.5, 10.0  # of LCM's c_skip and c_out

Distance = str | Callable[[Tensor], Tensor]  # a name of DISTANCES, or a function of the error, element by element


def pseudo_huber(c: float = HUBER) -> Callable[[Tensor], Tensor]:
    """The distance sqrt(error^2 + c^2) - c: the square over 2 c for errors below c, absolute above.

    >>> pseudo_huber(1.0)(torch.tensor([0.0, 1e-3, 1e3]))
    tensor([0.0000e+00, 4.7684e-07, 9.9900e+02])
    """
    return lambda error: (error.square() + c**2).sqrt() - c


DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {"l2": torch.square, "huber": pseudo_huber()}


def check_distance(distance: Distance) -> None:
    """Raises ValueError for a name that is not known."""
    if isinstance(distance, str):
        choose(DISTANCES, "distance", distance)


def distances(found: Tensor, goal: Tensor, distance: Distance) -> Tensor:
    """The mean distance of every sample, [B], in float32 at least."""
    dtype = torch.promote_types(found.dtype, torch.float32)
    measure = DISTANCES[distance] if isinstance(distance, str) else distance
    return measure(found.to(dtype) - goal.to(dtype)).flatten(1).mean(1)


def weighted(each: Tensor, weight: Tensor | None) -> Tensor:
    """The mean over samples [B]. Raises ValueError for weights that are not [B]."""
    if weight is None:
        return each.mean()
    if weight.shape != each.shape:
        raise ValueError(f"weight must be [{len(each)}], one for each sample, got shape {tuple(weight.shape)}")
    return (weight.to(each) * each).mean()


def once(predict: Predict) -> Predict:
    """A prediction that is evaluated at its first call, and holds for the others."""
    found: list[Tensor] = []

    def remembered(x: Tensor, t: Time, s: Time | None = None) -> Tensor:
        if not found:
            found.append(predict(x, t, s))
        return found[0]

    return remembered


def landed(x: Tensor, t: Tensor, s: Time, jump: Callable[[], Tensor]) -> Tensor:
    """Where `jump` leads from (x, t) to s: x itself, without an evaluation, where nothing has a way to go (eq. 26)."""
    return x if bool((t == s).all()) else jump()


def tcd_loss(
    student: Predict,
    target: Predict,
    teacher: Predict,
    sched: Schedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    n: Tensor,
    m: Tensor | None,
    tcf: str = "1",
    solver: str = "ddim",
    distance: Distance = "l2",
    weight: Tensor | None = None,
) -> Tensor:
    """Trajectory consistency distillation (eq. 29, Algorithms 1 and 2), averaged over everything:

        weight || f_student(x_t, t, m) - f_target(x_n, n, m) ||^2,   x_n = Phi(x_t, t, n; teacher)

    t > n >= m are [B]. m may be [B, M], several ends for each sample, or None: all training steps from the first up to
    n, in closed form. As the network of TCF(1) knows no end, neither costs it an evaluation more. Raises ValueError
    for an unknown tcf, solver or distance, and for m = None with another than TCF(1) and l2.
    """
    f, phi = choose(TCF, "tcf", tcf), choose(SOLVERS, "solver", solver)
    check_distance(distance)
    if m is None and (tcf, distance) != ("1", "l2"):
        raise ValueError(f"the mean over all m has a closed form for tcf '1' and l2, not for {tcf!r} and {distance!r}")
    x_t = add_noise(sched, x0, noise, t)
    with torch.no_grad():
        x_n = phi(teacher, sched, x_t, t, n)
    if m is None:
        return weighted(over_all_ends(student, target, sched, x_t, x_n, t, n), weight)
    if tcf == "1":
        student, target = once(student), once(target)
    ends = m.reshape(len(m), -1).unbind(1)
    with torch.no_grad():
        goals = [landed(x_n, n, end, partial(f, target, sched, x_n, n, end)) for end in ends]
    each = [distances(f(student, sched, x_t, t, end), goal, distance) for end, goal in zip(ends, goals, strict=True)]
    return weighted(torch.stack(each).mean(0), weight)


def over_all_ends(
    student: Predict, target: Predict, sched: Schedule, x_t: Tensor, x_n: Tensor, t: Tensor, n: Tensor
) -> Tensor:
    """The squared error of TCF(1) averaged over all m <= n, [B]. With the differences of both sides' x0 and eps,

        f(x_t, t, m) - f(x_n, n, m) = alpha_m (x0_t - x0_n) + sigma_m (eps_t - eps_n)

    only the means of alpha_m^2, alpha_m sigma_m and sigma_m^2 depend on m.
    """
    with torch.no_grad():
        of_n = target(x_n, n, n)
    of_t = student(x_t, t, n)
    x_t, of_t, x_n, of_n = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (x_t, of_t, x_n, of_n))
    data = of_t - of_n
    eps = output_from(of_t, "eps", sched, x_t, t) - output_from(of_n, "eps", sched, x_n, n)
    every = sched.time_at(torch.arange(sched.steps, dtype=torch.float64))
    alpha, sigma = sched.alpha(every), sched.sigma(every)
    means = torch.stack([alpha * alpha, 2 * alpha * sigma, sigma * sigma]).cumsum(1) / torch.arange(1, len(alpha) + 1)
    last = sched.index_of(n).round().long()
    products = torch.stack([(a * b).flatten(1).mean(1) for a, b in ((data, data), (data, eps), (eps, eps))])
    return (means.to(products)[:, last] * products).sum(0)


def scalings(sched: Schedule, t: Time) -> tuple[Tensor, Tensor]:
    """LCM's c_skip and c_out (eq. 11), in training steps: 1 and 0 at the first step and at clean data."""
    scaled = TIME_SCALE * sched.index_of(t).clamp(min=0)
    total = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, scaled / total.sqrt()


def skip_connected(predict: Predict, sched: Schedule, x: Tensor, t: Time) -> Tensor:
    """c_skip x + c_out x0 (eq. 7 and 11)."""
    c_skip, c_out = scalings(sched, t)
    return combine((c_skip, x), (c_out, predict(x, t, sched.clean)))


def to_clean(predict: Predict, sched: Schedule, x: Tensor, t: Time) -> Tensor:
    """x0, and x itself where it is clean (eq. 6)."""
    return tcf1(predict, sched, x, t, sched.clean)


# The consistency function f(x_t, t) -> x0 and how it meets its boundary condition f(x0, 0) = x0.
FORMS: dict[str, Callable[[Predict, Schedule, Tensor, Time], Tensor]] = {"x0": to_clean, "skip": skip_connected}


def cm_loss(
    student: Predict,
    target: Predict,
    teacher: Predict,
    sched: Schedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    n: Tensor,
    solver: str = "ddim",
    form: str = "x0",
    distance: Distance = "l2",
    weight: Tensor | None = None,
) -> Tensor:
    """Consistency distillation (eq. 8; Song et al. 2023): TCD whose every end is clean data.

        weight || f_student(x_t, t) - f_target(x_n, n) ||^2,   x_n = Phi(x_t, t, n; teacher)

    t > n are [B], neighbours as `draw_interval` draws them; n may be clean. `form` is "x0" (eq. 6) or "skip" (eq. 7).
    Raises ValueError for an unknown solver, form or distance.
    """
    f, phi = choose(FORMS, "form", form), choose(SOLVERS, "solver", solver)
    check_distance(distance)
    x_t = add_noise(sched, x0, noise, t)
    with torch.no_grad():
        x_n = phi(teacher, sched, x_t, t, n)
        goal = landed(x_n, n, sched.clean, partial(f, target, sched, x_n, n))
    return weighted(distances(f(student, sched, x_t, t), goal, distance), weight)


def lcm_loss(
    student: Predict,
    target: Predict,
    teacher: Predict,
    sched: Schedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    n: Tensor,
    solver: str = "ddim",
    distance: Distance = "huber",
    weight: Tensor | None = None,
) -> Tensor:
    """Latent consistency distillation (eq. 13): consistency with c_skip and c_out (eq. 11) over k steps at once.

    t = t_{n+k} and n [B] from a grid k apart, as LCM's code and `draw_interval` draw them, so that one interval in
    N / k ends at clean data, where c_skip holds the student (docs/log.md). The rest is as in `cm_loss`.
    """
    return cm_loss(student, target, teacher, sched, x0, noise, t, n, solver, "skip", distance, weight)


def direct_cm_loss(
    student: Predict,
    teacher: Predict,
    sched: Schedule,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    intervals: int = 50,
    solver: str = "ddim",
    form: str = "x0",
    distance: Distance = "l2",
    weight: Tensor | None = None,
    teacher_of: Callable[[Tensor], Predict] | None = None,
) -> Tensor:
    """Direct consistency (second paper, eq. 5): the student against the teacher's whole path to clean data.

        weight || f_student(x_t, t) - f_solver(x_t, t, 0) ||^2

    The path follows the N `intervals` below t [B], which must be an end of one; it has as many steps as the noisiest
    sample needs. `teacher_of(rows)` is the teacher for those samples of the batch alone: with it nothing is evaluated
    for one whose turn has not come, which is half of all. Raises ValueError for other times, intervals that do not
    divide the schedule's steps, and unknown names.
    """
    f, phi = choose(FORMS, "form", form), choose(SOLVERS, "solver", solver)
    check_distance(distance)
    times = interval_times(sched, intervals).to(t)
    i = (t[:, None] - times).abs().argmin(1)
    if not torch.allclose(times[i], as_time(t)):
        raise ValueError(
            f"t must be among the {intervals} intervals' ends, got {t[~torch.isclose(times[i], t)].tolist()}"
        )
    x_t = add_noise(sched, x0, noise, t)
    goal, of = x_t.clone(), teacher_of or partial(among_all, teacher, x_t)
    with torch.no_grad():
        for step in range(int(i.max()), 0, -1):  # a sample that is nearer joins when the others have come down to it
            rows = (i >= step).nonzero()[:, 0]
            goal[rows] = phi(of(rows), sched, goal[rows], times[step], times[step - 1])
    return weighted(distances(f(student, sched, x_t, t), goal, distance), weight)


def among_all(predict: Predict, x: Tensor, rows: Tensor) -> Predict:
    """For some rows of a batch, the prediction that only takes all of it: the others are as they are in x."""
    return lambda x_rows, t, s=None: predict(x.index_copy(0, rows, x_rows), t, s)[rows]
