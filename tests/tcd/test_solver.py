"""Teacher solvers beyond their order (test_tcf.py): what each is known as elsewhere, and whole paths."""

import math

import pytest
import torch
from oracle import ORDER, SCHEDULES, Gaussian

import tcd
from tcd.solver import follow

F64 = torch.float64
SD = tcd.DiscreteVP.scaled_linear()
EDM = tcd.VarianceExploding(0.03, 14.5)

every_solver = pytest.mark.parametrize("solver", tcd.SOLVERS)
every_schedule = pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)


def f64(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def test_heun_on_an_exploding_schedule_is_karras_s():
    """Algorithm 1 of Karras et al. 2022 without churn, in their terms: d = (x - D(x; sigma)) / sigma."""
    data, t, s = Gaussian(EDM), 3.0, 1.2
    x = data.draw(t, (5, 2))
    d = (x - data.x0(x, t)) / t
    ahead = x + (s - t) * d
    wanted = x + (s - t) * (d + (ahead - data.x0(ahead, s)) / s) / 2
    torch.testing.assert_close(tcd.SOLVERS["heun"](data.x0, EDM, x, f64(t), f64(s)), wanted, rtol=0, atol=1e-13)


def test_heun_on_flow_is_the_textbook_s():
    flow = tcd.RectifiedFlow()
    data, t, s = Gaussian(flow), 0.8, 0.5
    v = data.net("flow")
    x = data.draw(t, (5, 2))
    ahead = x + (s - t) * v(x, f64(t))
    wanted = x + (s - t) * (v(x, f64(t)) + v(ahead, f64(s))) / 2
    torch.testing.assert_close(tcd.SOLVERS["heun"](data.x0, flow, x, f64(t), f64(s)), wanted, rtol=0, atol=1e-13)


def test_heun_s_last_step_is_ddim_s():
    data = Gaussian(SD)
    x = data.draw(20, (5, 2))
    heun, ddim = (tcd.SOLVERS[name](data.x0, SD, x, f64(20), f64(SD.clean)) for name in ("heun", "ddim"))
    assert torch.equal(heun, ddim)


@pytest.mark.parametrize("sched", [EDM, tcd.RectifiedFlow()], ids=["exploding", "flow"])
def test_where_alpha_and_sigma_are_linear_euler_is_ddim(sched):
    data, t, s = Gaussian(sched), f64(0.8), f64(0.3)
    x = data.draw(t, (5, 2))
    euler, ddim = (tcd.SOLVERS[name](data.x0, sched, x, t, s) for name in ("euler", "ddim"))
    torch.testing.assert_close(euler, ddim, rtol=0, atol=1e-12)


def test_euler_on_a_discrete_schedule_is_the_second_paper_s():
    """dx/dt = -beta (x - eps / sigma) / 2, beta being that of one step: of the same order of smallness at each side."""
    data, t, s = Gaussian(SD), f64(499), f64(479)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64) ** 2
    x = data.draw(t, (5, 2))
    eps = (x - SD.alpha(t) * data.x0(x, t)) / SD.sigma(t)
    wanted = x - (s - t) * betas[499] / 2 * (x - eps / SD.sigma(t))
    moved = (wanted - x).abs().max()
    # The step of alpha_bar around t against the beta of the step below it: they differ as neighbours do
    assert (tcd.SOLVERS["euler"](data.x0, SD, x, t, s) - wanted).abs().max() < 0.01 * moved


@every_solver
@every_schedule
def test_many_steps_come_to_the_exact_path(solver, sched):
    """Through steps that are even among the training steps; the error falls by the solver's order."""
    data = Gaussian(sched)
    t, s = (sched.time_at(f64(index)) for index in (900.0, 100.0))
    x = data.draw(t, (5, 2))
    errors = [(tcd.solve(data.x0, sched, x, t, s, n, solver) - data.path(x, t, s)).abs().max() for n in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDER[solver], abs=0.3)  # the next order in 1 / 40 shows


@every_schedule
def test_there_and_back_again(sched):
    data = Gaussian(sched)
    t, s = (sched.time_at(f64(index)) for index in (800.0, 200.0))
    x = data.draw(s, (5, 2))
    noisy = tcd.solve(data.x0, sched, x, s, t, 100, "heun")
    torch.testing.assert_close(noisy, data.path(x, s, t), rtol=0, atol=2e-3 * float(noisy.abs().max()))
    torch.testing.assert_close(tcd.solve(data.x0, sched, noisy, t, s, 100, "heun"), x, rtol=0, atol=5e-3)


@every_solver
@every_schedule
def test_a_path_ends_at_clean_data(solver, sched):
    data = Gaussian(sched)
    x = data.draw(sched.last, (5, 2))
    landed = tcd.solve(data.x0, sched, x, f64(sched.last), sched.clean, 200, solver)
    assert landed.isfinite().all()
    # Euler's steps are even in time, and the last of them, where sigma falls steeply, are coarse
    torch.testing.assert_close(landed, data.path(x, sched.last, sched.clean), rtol=0, atol=0.1)


def test_every_sample_has_its_own_ends():
    data = Gaussian(SD)
    t, s = torch.tensor([900.0, 500.0], dtype=F64), torch.tensor([100.0, -1.0], dtype=F64)
    x = data.draw(700, (2, 3))
    one_by_one = [tcd.solve(data.x0, SD, x[i : i + 1], t[i], s[i], 7) for i in range(2)]
    torch.testing.assert_close(tcd.solve(data.x0, SD, x, t, s, 7), torch.cat(one_by_one), rtol=0, atol=1e-13)


def test_one_step_is_the_solver_s():
    data = Gaussian(SD)
    x = data.draw(700, (2, 3))
    assert torch.equal(tcd.solve(data.x0, SD, x, 700, 300, 1, "heun"), tcd.SOLVERS["heun"](data.x0, SD, x, 700, 300))


@every_solver
def test_a_path_that_waits_changes_nothing(solver):
    data = Gaussian(SD)
    x = data.draw(700, (2, 3))
    waiting, going = torch.tensor([700.0, 700.0, 300.0, 300.0]), torch.tensor([700.0, 300.0])
    assert torch.equal(follow(data.x0, SD, x, waiting, solver), follow(data.x0, SD, x, going, solver))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"steps": 0}, "steps must be at least 1, got 0"), ({"solver": "rk4"}, "solver must be one of ddim.* got 'rk4'")],
)
def test_bad_values_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        tcd.solve(lambda x, t, s: x, SD, torch.ones(1, 2), 900, 0, **{"steps": 4, **wrong})
