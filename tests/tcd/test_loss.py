"""The draw of times and the distillation loss, against their definitions and the Gaussian oracle."""

import math
from itertools import pairwise

import pytest
import torch
from oracle import ORDER, SCHEDULES, Gaussian, self_consistent
from torch import Tensor, nn

import tcd
from tcd.loss import FORMS, distances, scalings

F64 = torch.float64
SD = tcd.DiscreteVP.scaled_linear()
VP = {name: sched for name, sched in SCHEDULES.items() if isinstance(sched, tcd.DiscreteVP)}

every_tcf = pytest.mark.parametrize("tcf", tcd.TCF)
every_solver = pytest.mark.parametrize("solver", tcd.SOLVERS)
exact_for_constants = pytest.mark.parametrize("solver", [name for name in tcd.SOLVERS if name != "euler"])
every_schedule = pytest.mark.parametrize("sched", VP.values(), ids=VP)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_batch(
    sched: tcd.DiscreteVP, size: int = 8, k: int = 20, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(x0, noise, t, n, m) in float64."""
    generator = seeded(seed)
    x0 = 0.4 + 0.7 * torch.randn(size, 2, 3, dtype=F64, generator=generator)
    noise = torch.randn(x0.shape, dtype=F64, generator=generator)
    t, n, m = (time.double() for time in tcd.draw_times(size, sched, k, generator))
    return x0, noise, t, n, m


def never(*_) -> Tensor:
    raise AssertionError("the prediction was evaluated")


class Scaled(nn.Module):
    """A network with one parameter: an eps-prediction that is off by a factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=F64))

    def forward(self, x, t):
        return self.factor * Gaussian(SD).net("eps")(x, t)


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "k"), [(1000, 20), (1000, 1), (1000, 999), (50, 10), (2, 1)])
def test_times_are_in_order_and_k_apart(steps, k):
    t, n, m = tcd.draw_times(5000, tcd.DiscreteVP.linear(steps), k, seeded())
    assert (t - n == k).all()
    assert ((m >= 0) & (m <= n)).all()
    assert (t <= steps - 1).all()
    for time in (t, n, m):
        assert (time.shape, time.dtype) == ((5000,), torch.float32)
        assert (time == time.floor()).all()


def test_every_pair_of_a_small_schedule_is_drawn_as_often_as_it_should():
    """n uniform below N - k and m uniform in [0, n]: chi-square over all pairs."""
    steps, k, draws = 12, 3, 100_000
    _, n, m = tcd.draw_times(draws, tcd.DiscreteVP.linear(steps), k, seeded())
    seen = torch.bincount((n * steps + m).long(), minlength=steps * steps).reshape(steps, steps)
    wanted = torch.full((steps - k, steps), draws / (steps - k)) / torch.arange(1, steps - k + 1)[:, None]
    possible = torch.ones(steps - k, steps).tril().bool()
    chi_square = ((seen[: steps - k] - wanted).square() / wanted)[possible].sum().item()
    freedom = possible.sum().item() - 1
    assert seen[: steps - k][possible].sum() == draws
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)  # four of its standard deviations


def test_times_of_stable_diffusion_have_the_moments_of_their_distribution():
    draws = 200_000
    _, n, m = (time.double() for time in tcd.draw_times(draws, SD, 20, seeded()))
    part = (m + 0.5) / (n + 1)  # in the middle of its cell, uniform in (0, 1)
    # A uniform variable has variance 1/12; four standard errors of its mean
    assert abs((n + 0.5).mean() / 980 - 0.5) < 4 * math.sqrt(1 / 12 / draws)
    assert abs(part.mean() - 0.5) < 4 * math.sqrt(1 / 12 / draws)
    assert n.var().item() == pytest.approx((980**2 - 1) / 12, rel=0.01)  # the standard error of this is 0.2%
    assert abs(torch.corrcoef(torch.stack([n, part]))[0, 1]) < 4 / math.sqrt(draws)
    assert {n.min().item(), n.max().item()} == {0, 979}


def test_the_same_seed_draws_the_same_times():
    first, again, other = (torch.stack(tcd.draw_times(64, SD, generator=seeded(seed))) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_seeded_draw_leaves_torch_s_own_generator_alone():
    before = torch.get_rng_state()
    tcd.draw_times(64, SD, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("k", [0, -20, 1000])
def test_a_step_that_does_not_fit_is_named(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, 999\], got {k}"):
        tcd.draw_times(4, SD, k)


@pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)
def test_noised_data_has_the_schedule_s_mean_and_noise(sched):
    x0, noise = torch.randn(2, 3, 4, 2, dtype=F64, generator=seeded())
    t = torch.tensor([0.1, 0.5, 1.0], dtype=F64) * sched.last
    alpha, sigma = sched.alpha(t)[:, None, None], sched.sigma(t)[:, None, None]
    torch.testing.assert_close(tcd.add_noise(sched, x0, noise, t), alpha * x0 + sigma * noise, rtol=0, atol=1e-13)
    assert tcd.add_noise(sched, x0.half(), noise.half(), t).dtype == torch.float16


# --- the loss ---------------------------------------------------------------------------------------------------------


@every_schedule
def test_the_exact_student_of_an_exact_teacher_has_no_loss(sched):
    """With predictions that make every DDIM step exact, both branches land on the same point of the path."""
    data = Gaussian(sched)
    loss = tcd.tcd_loss(data.student, data.student, data.student, sched, *a_batch(sched, 64))
    assert loss < 1e-26  # the square of float64's rounding of states of order 1


@every_solver
def test_what_is_left_of_an_exact_student_s_loss_is_the_teacher_s_error(solver):
    """One teacher step of order p errs by O(k^(p + 1)), and the loss is its square: 16 times less for half of k at
    first order, 64 times at second."""
    data, x0, noise = Gaussian(SD), *a_batch(SD, 64)[:2]
    n, m = torch.full((64,), 500.0, dtype=F64), torch.full((64,), 100.0, dtype=F64)
    losses = [
        tcd.tcd_loss(data.student, data.student, data.x0, SD, x0, noise, n + k, n, m, solver=solver).item()
        for k in (20, 10, 5)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(losses)]
    assert orders == pytest.approx([2 * ORDER[solver] + 2] * 2, abs=0.15)  # the next order in k still shows at k = 20


@every_schedule
def test_a_student_that_is_its_teacher_has_no_loss_where_m_is_n(sched):
    """Exactly none: TCF(1) and DDIM are one function, and f(x, n, n) = x bit for bit."""
    data = Gaussian(sched)
    x0, noise, t, n, _ = a_batch(sched)
    assert tcd.tcd_loss(data.x0, data.x0, data.x0, sched, x0, noise, t, n, n, "1", "ddim") == 0


@every_tcf
@exact_for_constants
@every_schedule
def test_data_at_one_point_leaves_no_loss(sched, solver, tcf):
    """c = 0: the prediction is constant, and so every step of either order exact."""
    data = Gaussian(sched, 0.4, 0.0)
    _, noise, t, n, m = a_batch(sched)
    assert tcd.tcd_loss(data.x0, data.x0, data.x0, sched, 0.4 + 0 * noise, noise, t, n, m, tcf, solver) < 1e-26


@every_tcf
@exact_for_constants
@every_schedule
def test_a_self_consistent_student_is_its_own_teacher(sched, solver, tcf):
    """Eq. 18 over a spread of data: x / (alpha + q sigma) says the same clean data all along its own path."""
    predict = self_consistent(sched)
    assert tcd.tcd_loss(predict, predict, predict, sched, *a_batch(sched), tcf, solver) < 1e-26


@every_tcf
@every_solver
def test_a_wrong_student_has_a_loss(tcf, solver):
    data = Gaussian(SD)
    wrong = tcd.as_x0(Scaled(0.9), SD)
    assert tcd.tcd_loss(wrong, data.student, data.x0, SD, *a_batch(SD), tcf, solver) > 1e-4


def test_the_loss_is_algorithm_2_written_out():
    """In the paper's own terms: eps-networks, alpha_bar from the betas, and guidance of the solver's two results."""
    alpha_bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0).double()
    x, noise, t, n, m = a_batch(SD, seed=3)
    w = 2 + 12 * torch.rand(8, dtype=F64, generator=seeded(4))
    factors = {"student": 0.97, "target": 0.98, "cond": 1.0, "uncond": 0.95}
    nets = {name: Scaled(factor) for name, factor in factors.items()}

    def f(eps, x_t, t, s):
        """DDIM from t to s, of which TCF(1) is another name."""
        a_t, a_s = (alpha_bar[time.long()][:, None, None] for time in (t, s))
        return (a_s / a_t).sqrt() * (x_t - (1 - a_t).sqrt() * eps(x_t, t)) + (1 - a_s).sqrt() * eps(x_t, t)

    a_t, scale = alpha_bar[t.long()][:, None, None], w[:, None, None]
    x_t = a_t.sqrt() * x + (1 - a_t).sqrt() * noise
    x_n = (1 + scale) * f(nets["cond"], x_t, t, n) - scale * f(nets["uncond"], x_t, t, n)
    wanted = (f(nets["student"], x_t, t, m) - f(nets["target"], x_n, n, m)).square().mean()

    as_x0 = {name: tcd.as_x0(net, SD, "eps") for name, net in nets.items()}
    teacher = tcd.guided(as_x0["cond"], as_x0["uncond"], w)
    loss = tcd.tcd_loss(as_x0["student"], as_x0["target"], teacher, SD, x, noise, t, n, m)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)


@every_tcf
@every_solver
def test_the_gradient_reaches_the_student_alone(tcf, solver):
    nets = [Scaled(factor) for factor in (0.9, 0.95, 1.0)]
    student, target, teacher = (tcd.as_x0(net, SD) for net in nets)
    loss = tcd.tcd_loss(student, target, teacher, SD, *a_batch(SD), tcf, solver)
    slopes = torch.autograd.grad(loss, [net.factor for net in nets], allow_unused=True)
    assert slopes[0] != 0
    assert slopes[1:] == (None, None)


def test_one_network_may_play_all_three_and_learns_as_the_student():
    nets, batch = [Scaled(0.9), Scaled(0.9)], a_batch(SD)
    shared, other = (tcd.as_x0(net, SD) for net in nets)
    losses = tcd.tcd_loss(shared, shared, shared, SD, *batch), tcd.tcd_loss(other, shared, shared, SD, *batch)
    (alone,), (student,) = (torch.autograd.grad(loss, net.factor) for loss, net in zip(losses, nets, strict=True))
    assert torch.equal(alone, student)


def test_the_gradient_is_the_slope_of_the_loss():
    net, h = Scaled(0.9), 1e-3
    batch, exact = a_batch(SD), Gaussian(SD).x0

    def loss(net: Scaled) -> Tensor:
        return tcd.tcd_loss(tcd.as_x0(net, SD), exact, exact, SD, *batch)

    (slope,) = torch.autograd.grad(loss(net), net.factor)
    around = [loss(Scaled(factor)).item() for factor in (0.9 - h, 0.9 + h)]
    # The loss is quadratic in the factor, so the central difference is exact but for 1e-16 of rounding over h
    assert slope.item() == pytest.approx((around[1] - around[0]) / (2 * h), rel=1e-10)


def test_the_loss_is_the_mean_over_samples():
    data, wrong = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD)
    batch = a_batch(SD, 4)
    parts = zip(*(part.split(1) for part in batch), strict=True)
    alone = [tcd.tcd_loss(wrong, data.x0, data.x0, SD, x0, noise, t, n, m) for x0, noise, t, n, m in parts]
    together = tcd.tcd_loss(wrong, data.x0, data.x0, SD, *batch)
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-12)


def test_teacher_and_target_come_before_the_student_and_without_gradient():
    data, order = Gaussian(SD), []

    def watched(name):
        return lambda x, t, s: order.append((name, torch.is_grad_enabled())) or data.x0(x, t)

    tcd.tcd_loss(watched("student"), watched("target"), watched("teacher"), SD, *a_batch(SD))
    assert order == [("teacher", False), ("target", False), ("student", True)]


@pytest.mark.parametrize(
    ("dtype", "wanted"), [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (F64, F64)], ids=str
)
def test_the_loss_is_taken_in_float32_at_least(dtype, wanted):
    predict = tcd.as_x0(lambda x, t: 0.9 * x, SD)
    x0, noise, t, n, m = a_batch(SD)
    loss = tcd.tcd_loss(predict, predict, predict, SD, x0.to(dtype), noise.to(dtype), t, n, m)
    assert loss.dtype == wanted
    assert loss.isfinite()


@pytest.mark.parametrize("wrong", [{"tcf": "3"}, {"solver": "rk4"}, {"distance": "l1"}], ids=str)
def test_an_unknown_function_is_named(wrong):
    data = Gaussian(SD)
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        tcd.tcd_loss(data.x0, data.x0, data.x0, SD, *a_batch(SD), **wrong)


# --- several ends, weights, distances ---------------------------------------------------------------------------------


@every_tcf
def test_the_loss_over_several_ends_is_the_mean_of_theirs(tcf):
    data, wrong = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD)
    x0, noise, t, n, _ = a_batch(SD)
    ends = (torch.tensor([0.0, 0.3, 1.0], dtype=F64) * n[:, None]).floor()
    alone = [tcd.tcd_loss(wrong, data.x0, data.x0, SD, x0, noise, t, n, m, tcf) for m in ends.unbind(1)]
    together = tcd.tcd_loss(wrong, data.x0, data.x0, SD, x0, noise, t, n, ends, tcf)
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-12)


@pytest.mark.parametrize("m", [torch.zeros(8, 5, dtype=F64), None], ids=["several", "all"])
def test_several_ends_cost_tcf_1_no_evaluation_more(m):
    data, seen = Gaussian(SD), []

    def counted(x, t, s):
        seen.append(t)
        return data.x0(x, t)

    x0, noise, t, n, _ = a_batch(SD)
    tcd.tcd_loss(counted, counted, data.x0, SD, x0, noise, t, n, m)
    assert len(seen) == 2


@pytest.mark.parametrize("sched", [*VP.values(), SCHEDULES["flow_shift_3"], SCHEDULES["exploding"]])
def test_the_closed_form_over_all_ends_is_the_mean_over_each(sched):
    """Value and gradient, against every m of every sample, one by one."""
    data = Gaussian(sched)
    net = Scaled(0.9)
    x0, noise = a_batch(SD, 3)[:2]
    n_index = torch.tensor([0.0, 7.0, 60.0], dtype=F64)
    n, t = sched.time_at(n_index), sched.time_at(n_index + 20)

    def student(x, t, s):
        return net.factor * data.x0(x, t)

    means = []
    for i in range(3):
        ends = sched.time_at(torch.arange(int(n_index[i]) + 1, dtype=F64))
        one = slice(i, i + 1)
        batch = x0[one], noise[one], t[one], n[one], ends[None]
        means.append(tcd.tcd_loss(student, data.x0, data.x0, sched, *batch))
    wanted = torch.stack(means).mean()
    closed = tcd.tcd_loss(student, data.x0, data.x0, sched, x0, noise, t, n, None)
    slopes = [torch.autograd.grad(loss, net.factor)[0].item() for loss in (closed, wanted)]
    assert closed.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)


@pytest.mark.parametrize("other", [{"tcf": "2"}, {"distance": "huber"}], ids=str)
def test_there_is_no_closed_form_for_others(other):
    x0, noise, t, n, _ = a_batch(SD)
    with pytest.raises(ValueError, match="closed form for tcf '1' and l2"):
        tcd.tcd_loss(never, never, never, SD, x0, noise, t, n, None, **other)


def test_weights_multiply_each_sample_s_loss():
    data, wrong, batch = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD), a_batch(SD, 4)
    parts = zip(*(part.split(1) for part in batch), strict=True)
    alone = [tcd.tcd_loss(wrong, data.x0, data.x0, SD, *part).item() for part in parts]
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5])
    found = tcd.tcd_loss(wrong, data.x0, data.x0, SD, *batch, weight=weight)
    assert found.item() == pytest.approx((alone[1] + 2 * alone[2] + alone[3] / 2) / 4, rel=1e-12)
    with pytest.raises(ValueError, match=r"weight must be \[4\], one for each sample, got shape \(3,\)"):
        tcd.tcd_loss(wrong, data.x0, data.x0, SD, *batch, weight=weight[:3])


def test_the_huber_distance_is_square_for_small_and_absolute_for_large_errors():
    small, large = torch.tensor([[1e-5]], dtype=F64), torch.tensor([[10.0]], dtype=F64)
    zero = torch.zeros(1, 1, dtype=F64)
    assert distances(small, zero, "huber").item() == pytest.approx(1e-10 / 2e-3, rel=1e-3)
    assert distances(large, zero, "huber").item() == pytest.approx(10 - 1e-3, rel=1e-6)


# --- consistency, latent consistency, direct consistency --------------------------------------------------------------


def test_consistency_is_trajectory_consistency_to_clean_data():
    data, wrong = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD)
    x0, noise, t, n, m = a_batch(SD)
    found = tcd.cm_loss(wrong, data.x0, data.x0, SD, x0, noise, t, n, "heun")
    wanted = tcd.tcd_loss(wrong, data.x0, data.x0, SD, x0, noise, t, n, torch.full_like(m, SD.clean), "1", "heun")
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_consistency_ends_at_the_teacher_s_own_clean_data():
    """Where n is clean, the target is the teacher's step itself: f(x0, 0) = x0, whatever the network says there."""
    data, x0, noise = Gaussian(SD), *a_batch(SD, 4)[:2]
    t, n = (time[:1].expand(4) for time in (tcd.interval_times(SD, 50)[1:2], tcd.interval_times(SD, 50)[:1]))
    x_t = tcd.add_noise(SD, x0, noise, t)
    wanted = (2 * data.x0(x_t, t) - tcd.SOLVERS["ddim"](data.x0, SD, x_t, t, n)).square().mean()
    for form in FORMS:
        found = tcd.cm_loss(lambda x, t, s: 2 * data.x0(x, t), lambda x, t, s: x + 7, data.x0, SD, x0, noise, t, n)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-9), form


def test_lcm_s_scalings_are_diffusers_s():
    scheduler = pytest.importorskip("diffusers").LCMScheduler()
    for t in (0, 1, 19, 259, 999):
        theirs = scheduler.get_scalings_for_boundary_condition_discrete(torch.tensor(float(t)))
        assert [float(v) for v in scalings(SD, float(t))] == pytest.approx([float(v) for v in theirs], rel=1e-6)
    assert [float(v) for v in scalings(SD, SD.clean)] == [1, 0]


def test_the_lcm_loss_is_its_code_written_out():
    data, wrong = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD)
    x0, noise, t, n, _ = a_batch(SD)
    x_t = tcd.add_noise(SD, x0, noise, t)
    x_n = tcd.TCF["1"](data.x0, SD, x_t, t, n)
    (skip_t, out_t), (skip_n, out_n) = (
        (0.25 / ((10 * time) ** 2 + 0.25), 10 * time / ((10 * time) ** 2 + 0.25) ** 0.5)
        for time in (t[:, None, None], n[:, None, None])
    )
    error = skip_t * x_t + out_t * wrong(x_t, t) - skip_n * x_n - out_n * data.x0(x_n, n)
    wanted = ((error**2 + 1e-6) ** 0.5 - 1e-3).mean()
    assert tcd.lcm_loss(wrong, data.x0, data.x0, SD, x0, noise, t, n).item() == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("solver", tcd.SOLVERS)
def test_the_direct_loss_is_the_error_against_the_teacher_s_whole_path(solver):
    data, wrong = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD)
    x0, noise = a_batch(SD, 3)[:2]
    times = tcd.interval_times(SD, 50).double()
    i = torch.tensor([1, 7, 50])
    total = 0.0
    for j in range(3):
        x = x_t = tcd.add_noise(SD, x0[j : j + 1], noise[j : j + 1], times[i[j]])
        for k in range(int(i[j]), 0, -1):
            x = tcd.SOLVERS[solver](data.x0, SD, x, times[k], times[k - 1])
        total += (wrong(x_t, times[i[j]]) - x).square().mean().item() / 3
    found = tcd.direct_cm_loss(wrong, data.x0, SD, x0, noise, times[i], 50, solver)
    assert found.item() == pytest.approx(total, rel=1e-9)


def test_a_teacher_of_some_samples_is_asked_for_those_alone_whose_turn_it_is():
    data, wrong = Gaussian(SD), tcd.as_x0(Scaled(0.9), SD)
    x0, noise = a_batch(SD, 3)[:2]
    t, asked = tcd.interval_times(SD, 50).double()[[1, 7, 50]], []

    def teacher_of(rows):
        asked.extend(rows.tolist())
        return data.x0

    found = tcd.direct_cm_loss(wrong, never, SD, x0, noise, t, 50, teacher_of=teacher_of)
    assert found == tcd.direct_cm_loss(wrong, data.x0, SD, x0, noise, t, 50)
    assert [asked.count(i) for i in range(3)] == [1, 7, 50]


def test_the_exact_student_has_no_direct_loss_but_the_solver_s_error():
    data, x0, noise = Gaussian(SD), *a_batch(SD, 16)[:2]

    def exact(x, t, s):
        return data.path(x, t, SD.clean)

    losses = []
    for intervals in (50, 100, 200):
        t, _ = tcd.draw_interval(16, SD, 50, seeded())
        losses.append(tcd.direct_cm_loss(exact, data.x0, SD, x0, noise, t, intervals).item())
    assert [math.log2(a / b) for a, b in pairwise(losses)] == pytest.approx([2, 2], abs=0.3)


def test_a_time_between_the_intervals_is_named():
    x0, noise = a_batch(SD, 2)[:2]
    with pytest.raises(ValueError, match=r"among the 50 intervals' ends, got \[500.0\]"):
        tcd.direct_cm_loss(never, never, SD, x0, noise, torch.tensor([499.0, 500.0]), 50)


def tcd_by(tcf: str):
    return lambda net, exact, x0, noise, t, n, m: tcd.tcd_loss(net, net, exact, SD, x0, noise, t, n, m, tcf)


LOSSES = {
    **{f"tcd {tcf}": tcd_by(tcf) for tcf in tcd.TCF},
    "closed": lambda net, exact, x0, noise, t, n, m: tcd.tcd_loss(net, net, exact, SD, x0, noise, t, n, None),
    "huber": lambda net, exact, x0, noise, t, n, m: tcd.tcd_loss(
        net, net, exact, SD, x0, noise, t, n, m, distance="huber"
    ),
    "cm": lambda net, exact, x0, noise, t, n, m: tcd.cm_loss(net, net, exact, SD, x0, noise, t, n),
    "lcm": lambda net, exact, x0, noise, t, n, m: tcd.lcm_loss(net, net, exact, SD, x0, noise, t, n),
    "direct": lambda net, exact, x0, noise, t, n, m: tcd.direct_cm_loss(net, exact, SD, x0, noise, t, 1000),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_gradient_of_every_loss_is_its_slope(loss):
    """gradcheck in float64, with the target held: it has no gradient, though the same weights make it."""
    data, batch = Gaussian(SD), a_batch(SD, 2)

    def of(factor):
        held = factor.detach().clone()

        def net(x, t, s):
            return (factor if torch.is_grad_enabled() else 0 * held + 0.9) * data.x0(x, t)

        return loss(net, data.x0, *batch)

    assert torch.autograd.gradcheck(of, torch.tensor(0.8, dtype=F64, requires_grad=True))


def test_a_distance_may_be_a_function_of_the_error():
    sched = tcd.DiscreteVP.scaled_linear()
    x0, noise, t, n, m = a_batch(sched)
    parts = (lambda x, t, s=None: 0.5 * x, lambda x, t, s=None: 0.8 * x, lambda x, t, s=None: x)

    def loss(distance):
        return tcd.tcd_loss(*parts, sched, x0, noise, t, n, m, distance=distance)

    assert loss(tcd.loss.pseudo_huber(1e-3)) == loss("huber")
    assert loss(tcd.loss.pseudo_huber(0.5)) < loss(tcd.loss.pseudo_huber(0.1))
    assert loss(torch.square) == loss("l2")


@pytest.mark.parametrize("tcf", tcd.TCF)
def test_a_target_with_no_way_to_go_is_not_evaluated(tcf):
    sched = tcd.DiscreteVP.scaled_linear()
    x0, noise, t, n, _ = a_batch(sched)
    student = tcd.as_x0(Scaled(0.9), sched)
    teacher = tcd.as_x0(Scaled(1.0), sched)
    tcd.tcd_loss(student, never, teacher, sched, x0, noise, t, n, n, tcf=tcf)
    with pytest.raises(AssertionError, match="evaluated"):
        tcd.tcd_loss(student, never, teacher, sched, x0, noise, t, n, (n - 1).clamp(min=0), tcf=tcf)


@pytest.mark.parametrize("loss", [tcd.cm_loss, tcd.lcm_loss])
def test_a_target_at_clean_data_is_not_evaluated(loss):
    sched = tcd.DiscreteVP.scaled_linear()
    x0, noise, *_ = a_batch(sched)
    t, clean = torch.full((8,), 19.0).double(), torch.full((8,), sched.clean).double()
    student, teacher = (tcd.as_x0(Scaled(factor), sched) for factor in (0.9, 1.0))
    found = loss(student, never, teacher, sched, x0, noise, t, clean)
    assert found == loss(student, teacher, teacher, sched, x0, noise, t, clean)
