"""Times of training: their grids on every schedule. How they are distributed is in test_loss.py."""

from itertools import pairwise

import pytest
import torch
from oracle import SCHEDULES

import tcd

SD = tcd.DiscreteVP.scaled_linear()
every_schedule = pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)


@every_schedule
def test_times_are_training_steps_k_apart(sched):
    t, n, m = tcd.draw_times(2000, sched, 20, torch.Generator().manual_seed(0))
    t_index, n_index, m_index = (sched.index_of(time.double()) for time in (t, n, m))
    # float32 times, whose place among a thousand is known to some 1e-4
    torch.testing.assert_close(t_index - n_index, torch.full_like(n_index, 20), rtol=0, atol=1e-3)
    for index in (t_index, n_index, m_index):
        torch.testing.assert_close(index, index.round(), rtol=0, atol=1e-3)
    assert ((m <= n) & (n < t) & (m >= sched.first * (1 - 1e-6)) & (t <= sched.last)).all()


@every_schedule
@pytest.mark.parametrize("intervals", [1, 25, 50, 200, 1000])
def test_intervals_go_from_clean_data_to_pure_noise(sched, intervals):
    times = tcd.interval_times(sched, intervals)
    assert len(times) == intervals + 1
    assert times[0] == sched.clean
    assert times[-1].item() == pytest.approx(sched.last, rel=1e-6)
    assert (times.diff() > 0).all()


def test_fifty_intervals_end_on_the_distillation_grid():
    assert torch.equal(tcd.interval_times(SD, 50)[1:].flip(0), tcd.timesteps(SD, 50))


def test_every_interval_is_drawn():
    t, n = tcd.draw_interval(2000, SD, 25, torch.Generator().manual_seed(0))
    times = tcd.interval_times(SD, 25).tolist()
    assert {(float(a), float(b)) for a, b in zip(n, t, strict=True)} == set(pairwise(times))


@pytest.mark.parametrize("intervals", [0, 3, 1001, -5])
def test_intervals_that_do_not_fit_are_named(intervals):
    with pytest.raises(ValueError, match=f"intervals must divide the schedule's 1000 steps, got {intervals}"):
        tcd.interval_times(SD, intervals)


def test_several_ends_are_drawn_below_each_n():
    t, n, m = tcd.draw_times(500, SD, 20, torch.Generator().manual_seed(0), ends=4)
    assert (t.shape, n.shape, m.shape) == ((500,), (500,), (500, 4))
    assert ((m >= 0) & (m <= n[:, None])).all()
    # The mean of m / n is a half, with a standard error of .29 / sqrt(2000)
    assert abs((m / n[:, None].clamp(min=1)).mean() - 0.5) < 4 * 0.29 / 2000**0.5
    with pytest.raises(ValueError, match="ends must be at least 1, got 0"):
        tcd.draw_times(5, SD, ends=0)


def test_times_may_be_drawn_from_a_part_of_the_schedule():
    t, n, m = tcd.draw_times(2000, SD, 20, torch.Generator().manual_seed(0), between=(500, 520))
    assert set(t.tolist()) == set(range(500, 520))
    assert ((m >= 0) & (m <= n)).all()
    t, _ = tcd.draw_interval(2000, SD, 50, torch.Generator().manual_seed(0), (500, 560))
    assert set(t.tolist()) == {519.0, 539.0, 559.0}
    t, _, _ = tcd.draw_times(2000, SD, 20, torch.Generator().manual_seed(0), between=(0, 30))
    assert set(t.tolist()) == set(range(20, 30))


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ((0, 1001), r"within \[0, 1000\), got \[0, 1001\)"),
        ((5, 5), r"got \[5, 5\)"),
        ((0, 20), r"no t = t_\(n\+20\) is below training step 20"),
    ],
)
def test_a_part_that_has_no_times_is_named(between, message):
    with pytest.raises(ValueError, match=message):
        tcd.draw_times(5, SD, 20, between=between)


def test_a_part_without_an_interval_is_named():
    with pytest.raises(ValueError, match=r"none of the 50 intervals ends within training steps \[500, 519\)"):
        tcd.draw_interval(5, SD, 50, between=(500, 519))
