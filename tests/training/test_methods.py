"""The methods: the times that they draw, and that their losses are tcd's with what the options say."""

from dataclasses import replace

import pytest
import torch
from oracle import SCHEDULES, Gaussian

import tcd
from training.draws import generator
from training.methods import METHODS, WEIGHTINGS, Roles
from training.options import Options

SCHED = SCHEDULES["scaled_linear"]
DATA = Gaussian(SCHED)
HUBER = {"loss_type": "huber", "huber_c": 0.1}


def roles_of() -> Roles:
    """An exact teacher, and student and target that are wrong in different ways."""
    return Roles(lambda x, t, s=None: 0.5 * x, lambda x, t, s=None: 0.8 * x, DATA.x0, lambda rows: DATA.x0)


def batch_of(method, count: int = 4):
    """(x0, noise, times) as the trainer draws them: each sample from its own generator."""
    drawn = [generator(0, "test", i) for i in range(count)]
    noise = torch.stack([torch.randn(2, 3, generator=one, dtype=torch.float64) for one in drawn])
    times = tuple(torch.cat(each) for each in zip(*map(method.draw, drawn), strict=True))
    return DATA.draw(SCHED.clean, (count, 2, 3)), noise, times


def made(name: str, **named):
    return METHODS[name](replace(Options(), method=name, **named), SCHED)


@pytest.mark.parametrize("distance", [{}, HUBER], ids=["l2", "huber"])
@pytest.mark.parametrize("tcf", tcd.TCF)
def test_the_loss_of_tcd_is_tcd_s(tcf, distance):
    method = made("tcd", tcf=tcf, ends=3, skip_steps=100, solver="heun", **distance)
    x0, noise, (t, n, m) = batch_of(method)
    assert torch.equal(t - n, torch.full((4,), 100.0))
    assert m.shape == (4, 3)
    roles = roles_of()
    measure = tcd.loss.pseudo_huber(0.1) if distance else "l2"
    parts = (roles.student, roles.target, roles.teacher)
    wanted = tcd.tcd_loss(*parts, SCHED, x0, noise, t, n, m, tcf, "heun", measure)
    assert method.loss(roles, x0, noise, (t, n, m)) == wanted


def test_no_ends_mean_all_of_them_in_closed_form():
    method, roles = made("tcd", ends=0), roles_of()
    x0, noise, (t, n, m) = batch_of(method)
    parts = (roles.student, roles.target, roles.teacher)
    assert method.loss(roles, x0, noise, (t, n, m)) == tcd.tcd_loss(*parts, SCHED, x0, noise, t, n, None)


@pytest.mark.parametrize(("name", "loss"), [("cm", tcd.cm_loss), ("lcm", tcd.lcm_loss)])
@pytest.mark.parametrize("distance", [{}, HUBER], ids=["l2", "huber"])
def test_the_loss_of_consistency_is_tcd_s(name, loss, distance):
    method, roles = made(name, intervals=20, solver="euler", **distance), roles_of()
    x0, noise, (t, n) = batch_of(method)
    measure = tcd.loss.pseudo_huber(0.1) if distance else "l2"
    parts = (roles.student, roles.target, roles.teacher)
    wanted = loss(*parts, SCHED, x0, noise, t, n, solver="euler", distance=measure)
    assert method.loss(roles, x0, noise, (t, n)) == wanted
    assert set((t - n).tolist()) == {50.0}


@pytest.mark.parametrize("distance", [{}, HUBER], ids=["l2", "huber"])
def test_the_loss_of_direct_consistency_is_tcd_s(distance):
    method, roles = made("direct_cm", intervals=10, solver="dpmpp_2s", **distance), roles_of()
    x0, noise, (t,) = batch_of(method)
    measure = tcd.loss.pseudo_huber(0.1) if distance else "l2"
    parts = (roles.student, roles.teacher)
    wanted = tcd.direct_cm_loss(*parts, SCHED, x0, noise, t, 10, "dpmpp_2s", distance=measure)
    assert method.loss(roles, x0, noise, (t,)) == wanted


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_weighting_goes_by_the_signal_to_noise_ratio_at_t(weighting):
    method, roles = made("tcd", loss_weighting=weighting, min_snr_gamma=2.0), roles_of()
    x0, noise, times = batch_of(method)
    snr = (SCHED.alpha(times[0]) / SCHED.sigma(times[0])) ** 2
    weight = {"uniform": torch.ones(4), "min_snr": snr.clamp(max=2), "snr_plus_one": snr + 1}[weighting]
    parts = (roles.student, roles.target, roles.teacher)
    t, n, m = times
    assert method.loss(roles, x0, noise, times) == tcd.tcd_loss(*parts, SCHED, x0, noise, t, n, m, weight=weight)


@pytest.mark.parametrize("name", METHODS)
def test_t_is_drawn_between_the_timesteps_asked_for(name):
    method = made(name, intervals=50, min_timestep=500, max_timestep=600)
    times = [method.draw(generator(0, i))[0].item() for i in range(200)]
    assert 500 <= min(times) < 525
    assert 575 < max(times) < 600


@pytest.mark.parametrize(
    ("name", "named", "wanted"),
    [
        ("tcd", {"skip_steps": 1000}, r"k must be in \[1, 999\], got 1000"),
        ("tcd", {"max_timestep": 10}, r"no t = t_\(n\+20\) is below training step 10"),
        ("lcm", {"intervals": 30}, "intervals must divide the schedule's 1000 steps, got 30"),
        ("cm", {"min_timestep": 500, "max_timestep": 510}, r"none of the 50 intervals ends within .*\[500, 510\)"),
    ],
)
def test_times_that_the_schedule_has_not_are_refused(name, named, wanted):
    with pytest.raises(ValueError, match=wanted):
        made(name, **named).draw(generator(0))


def test_a_sample_s_generator_hangs_on_its_place_alone():
    def first(*place):
        return torch.rand(1, generator=generator(*place)).item()

    assert first(0, "draw", 3, 1) == first(0, "draw", 3, 1)
    assert len({first(0, "draw", 3, 1), first(1, "draw", 3, 1), first(0, "draw", 4, 1), first(0, "flip", 3, 1)}) == 4
