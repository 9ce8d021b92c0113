"""Trajectory consistency functions and teacher solvers against the exact path of the Gaussian oracle."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import ORDER, SCHEDULES, Gaussian, lam_grid, measured_orders

import tcd
from tcd.tcf import between

F64 = torch.float64
STEPS = {f"{kind} {name}": f for kind in ("TCF", "SOLVERS") for name, f in getattr(tcd, kind).items()}

every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
every_schedule = pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64).squeeze()


def part(sched: tcd.Schedule, *parts: float) -> torch.Tensor:
    """Times as parts of the schedule."""
    return f64(*parts) * sched.last


@every_schedule
def test_the_oracle_solves_the_probability_flow_ode(sched):
    """With y = x / alpha and k = sigma / alpha, the ODE is dy/dk = eps: by central differences in t."""
    data, t, h = Gaussian(sched, 0.4, 0.7), part(sched, 0.6), 1e-5 * sched.last
    x = data.draw(t, (5, 2))
    before, after = t - h, t + h
    dy = data.path(x, t, after) / sched.alpha(after) - data.path(x, t, before) / sched.alpha(before)
    dk = sched.sigma(after) / sched.alpha(after) - sched.sigma(before) / sched.alpha(before)
    eps = (x - sched.alpha(t) * data.x0(x, t)) / sched.sigma(t)
    # 1e-8: the rounding of y, 1e-16, over the 1e-5 that it is divided by, and a few digits of alpha_bar near 1
    torch.testing.assert_close(dy / dk, eps, rtol=0, atol=1e-8)


@every_schedule
def test_the_exact_path_composes(sched):
    data = Gaussian(sched)
    t, u, s = part(sched, 0.9, 0.5, 0.1)
    x = data.draw(t, (5, 2))
    torch.testing.assert_close(data.path(data.path(x, t, u), u, s), data.path(x, t, s), rtol=0, atol=1e-13)


@every_schedule
def test_the_exact_student_lands_on_the_path_from_anywhere(sched):
    """Eq. 18: f(x_t, t, s) is the same for all t of one path, here with F of eq. 24 known exactly."""
    data = Gaussian(sched)
    x = data.draw(sched.last, (5, 2))
    for t in part(sched, 1.0, 0.7, 0.3):
        for s in (part(sched, 0.1), f64(sched.clean)):
            landed = tcd.TCF["1"](data.student, sched, data.path(x, sched.last, t), t, s)
            torch.testing.assert_close(landed, data.path(x, sched.last, s), rtol=0, atol=1e-12)


@every_schedule
@pytest.mark.parametrize("name", [*tcd.TCF, *tcd.SOLVERS])
def test_the_order_of_convergence_is_the_stated_one(name, sched):
    if name not in ORDER:
        pytest.fail(f"state the order of {name!r} in tests/oracle.py")
    orders = measured_orders({**tcd.TCF, **tcd.SOLVERS}[name], sched)
    assert orders == pytest.approx([ORDER[name]] * 2, abs=0.15)  # the next order in 1 / n still shows at 32 steps


@every_schedule
def test_ddim_is_the_very_step_of_tcf_1(sched):
    data = Gaussian(sched)
    t, s = part(sched, 0.8, 0.3)
    x = data.draw(t, (5, 2))
    assert torch.equal(tcd.SOLVERS["ddim"](data.x0, sched, x, t, s), tcd.TCF["1"](data.x0, sched, x, t, s))


@every_schedule
def test_tcf_1_is_equation_21_with_logarithms(sched):
    data = Gaussian(sched)
    t, s = part(sched, 0.8, 0.3)
    x = data.draw(t, (5, 2))
    h = sched.lam(s) - sched.lam(t)
    wanted = sched.sigma(s) / sched.sigma(t) * x - sched.alpha(s) * (torch.exp(-h) - 1) * data.x0(x, t)
    torch.testing.assert_close(tcd.TCF["1"](data.x0, sched, x, t, s), wanted, rtol=0, atol=1e-13)


@every_schedule
@pytest.mark.parametrize("r", [0.2, 0.5, 0.8])
def test_tcf_2_is_equation_22_at_every_r(r, sched):
    """With logarithms; and of second order. The one that goes by name has r = 1/2."""
    data = Gaussian(sched)
    t, s = part(sched, 0.8, 0.3)
    x = data.draw(t, (5, 2))
    h = sched.lam(s) - sched.lam(t)
    u = sched.time_of(sched.lam(t) + r * h)
    x_u = sched.sigma(u) / sched.sigma(t) * x - sched.alpha(u) * (torch.exp(-r * h) - 1) * data.x0(x, t)
    x0 = (1 - 1 / (2 * r)) * data.x0(x, t) + 1 / (2 * r) * data.x0(x_u, u)
    wanted = sched.sigma(s) / sched.sigma(t) * x - sched.alpha(s) * (torch.exp(-h) - 1) * x0
    step = tcd.TCF["2"] if r == 0.5 else partial(tcd.tcf2, r=r)
    torch.testing.assert_close(step(data.x0, sched, x, t, s), wanted, rtol=0, atol=1e-11)
    assert measured_orders(step, sched) == pytest.approx([2, 2], abs=0.15)


@pytest.mark.parametrize("r", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_r_outside_is_named(r):
    with pytest.raises(ValueError, match=rf"r must be in \(0, 1\), got {r:g}"):
        tcd.tcf2(lambda x, t, s: x, SCHEDULES["linear"], torch.ones(1, 2), 900.0, 300.0, r)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_on_rectified_flow_tcf_1_is_the_euler_step(shift):
    sched = tcd.RectifiedFlow(shift)
    x, v = torch.randn(2, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    for t, s in ((1.0, 0.4), (0.7, 0.0), (0.7, 0.6)):
        t, s = f64(t), f64(s)
        landed = tcd.TCF["1"](tcd.as_x0(lambda x, t: v, sched, "flow"), sched, x, t, s)
        torch.testing.assert_close(landed, x + (sched.sigma(s) - sched.sigma(t)) * v, rtol=0, atol=1e-14)


@pytest.mark.parametrize("step", [step for name, step in STEPS.items() if "euler" not in name])
@every_schedule
def test_data_at_one_point_is_reached_in_one_step(step, sched):
    """c = 0: the prediction is constant, and all are exact that know how alpha and sigma change: all but Euler's."""
    data = Gaussian(sched, 0.4, 0.0)
    t, s = part(sched, 0.9, 0.1)
    x = data.draw(t, (5, 2))
    torch.testing.assert_close(step(data.x0, sched, x, t, s), data.path(x, t, s), rtol=0, atol=1e-12)


@every_step
@every_schedule
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64], ids=str)
def test_staying_at_t_gives_x_back_bit_for_bit(step, sched, dtype):
    """Eq. 27, with a prediction that is far off."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for t in torch.linspace(sched.first, sched.last, 23):
        assert torch.equal(step(lambda x, t, s=None: 3 * x + 100, sched, x, t, t), x)


@every_step
@every_schedule
def test_clean_data_stays_as_it_is_bit_for_bit(step, sched):
    """Eq. 26."""
    x = torch.randn(3, 4)
    assert torch.equal(step(lambda x, t, s=None: 3 * x + 100, sched, x, sched.clean, sched.clean), x)


@every_step
@every_schedule
@given(data=st.data())
@settings(deadline=None, derandomize=True, database=None, max_examples=15)
def test_staying_at_t_gives_x_back_at_any_time_shape_and_batch(step, sched, data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    times = st.floats(sched.clean, sched.last, width=32)
    t = torch.tensor(data.draw(times | st.lists(times, min_size=shape[0], max_size=shape[0])))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    assert torch.equal(step(lambda x, t, s=None: 3 * x + 100, sched, x, t, t), x)


@pytest.mark.parametrize("tcf", tcd.TCF)
@every_schedule
def test_the_clean_end_is_the_prediction(tcf, sched):
    """Bit for bit, and the one of the last evaluation: the midpoint's for TCF(2)."""
    data, seen = Gaussian(sched), []

    def predict(x, t, s=None):
        seen.append(data.x0(x, t))
        return seen[-1]

    t = part(sched, 0.6)
    landed = tcd.TCF[tcf](predict, sched, data.draw(t, (5, 2)), t, f64(sched.clean))
    assert torch.equal(landed, seen[-1])


@every_step
@every_schedule
def test_from_pure_noise_to_clean_data_everything_is_finite(step, sched):
    data = Gaussian(sched)
    x = data.draw(sched.last, (5, 2))
    assert step(data.x0, sched, x, f64(sched.last), f64(sched.clean)).isfinite().all()


@every_step
@every_schedule
def test_a_batch_of_times_is_a_loop_over_samples(step, sched):
    data = Gaussian(sched)
    t, s = part(sched, 1.0, 0.8, 0.5, 0.3), part(sched, 0.7, 0.8, 0.2, 0.01)
    s[-1] = sched.clean
    x = data.draw(0.7 * sched.last, (4, 3, 2))
    one_by_one = [step(data.x0, sched, x[i : i + 1], t[i], s[i]) for i in range(4)]
    # 1e-15 times few: vectorised exp and sigmoid may round their last bit otherwise
    torch.testing.assert_close(step(data.x0, sched, x, t, s), torch.cat(one_by_one), rtol=0, atol=1e-13)


@every_step
@every_schedule
def test_one_target_for_a_batch_of_sources_and_the_other_way_round(step, sched):
    data = Gaussian(sched)
    t, s = part(sched, 0.9, 0.6), part(sched, 0.1, 0.2)
    x = data.draw(0.7 * sched.last, (2, 3))
    for i, (a, b) in enumerate([(t, s[:1].expand(2)), (t[:1].expand(2), s)]):
        mixed = step(data.x0, sched, x, a, b[0]) if i == 0 else step(data.x0, sched, x, a[0], b)
        torch.testing.assert_close(mixed, step(data.x0, sched, x, a, b), rtol=0, atol=1e-13)


@every_schedule
def test_the_midpoint_is_halfway_in_lam(sched):
    t, s = lam_grid(sched, 7)[[0, -1]]
    middle = (sched.lam(t) + sched.lam(s)) / 2
    torch.testing.assert_close(sched.lam(between(sched, t, s, 0.5)), middle, rtol=0, atol=1e-10)


@every_schedule
def test_the_midpoint_is_never_outside(sched):
    times = torch.linspace(sched.clean, sched.last, 301, dtype=F64)
    for t, s in ((times[1:], times[:-1]), (times[:-1], times[1:]), (times, torch.full_like(times, sched.clean))):
        u = between(sched, t, s, 0.5)
        assert ((torch.minimum(t, s) <= u) & (u <= torch.maximum(t, s))).all()


@pytest.mark.parametrize("tcf", tcd.TCF)
def test_the_prediction_that_is_used_is_told_where_the_step_goes(tcf):
    seen = []
    tcd.TCF[tcf](lambda x, t, s: seen.append(float(s)) or x, SCHEDULES["linear"], torch.ones(1, 2), 900.0, 300.0)
    assert seen[-1] == 300.0


@every_step
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_states_are_computed_in_float32(step, dtype):
    sched = tcd.DiscreteVP.scaled_linear()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    predict = tcd.as_x0(lambda x, t: 0.9 * x.float(), sched)
    half = step(predict, sched, x, 759.0, 349.0)
    exact = step(predict, sched, x.float(), 759.0, 349.0)
    assert half.dtype == dtype
    # Stored once as a prediction and once as the result: two roundings of half a unit each, of values up to 4
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=4 * torch.finfo(dtype).eps)
