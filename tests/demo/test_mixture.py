"""The second exact problem: a mixture in the plane. Its prediction, its path, and that every loss of `tcd` trains."""

import pytest
import torch
from oracle import SCHEDULES, Gaussian

import tcd
from demo import mixture

F64 = torch.float64


def test_the_prediction_is_the_mean_of_the_data_that_could_have_been():
    """By brute force: of a million points, noised, the mean of those that landed near x."""
    data, generator = mixture.petals(), torch.Generator().manual_seed(0)
    t, x = 500.0, torch.tensor([[0.3, 0.5]])
    x0 = data.draw(1_000_000, generator)
    noised = tcd.add_noise(mixture.SCHED, x0, torch.randn(x0.shape, generator=generator), t)
    near = x0[(noised - x).norm(dim=1) < 0.05]
    assert len(near) > 300
    error = near.std(dim=0) / len(near) ** 0.5
    assert ((data.x0(x, t)[0] - near.mean(0)).abs() < 4 * error).all()


@pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)
def test_a_mixture_of_one_is_the_gaussian(sched):
    one = mixture.Mixture(sched, torch.tensor([[0.4, 0.4]], dtype=F64), torch.ones(1, dtype=F64), 0.7)
    gaussian = Gaussian(sched, 0.4, 0.7)
    x, t = gaussian.draw(0.5 * sched.last, (5, 2)), torch.tensor(0.5 * sched.last, dtype=F64)
    torch.testing.assert_close(one.x0(x, t), gaussian.x0(x, t), rtol=0, atol=1e-12)


def test_the_path_carries_one_marginal_into_the_next():
    """Noised data at t, moved along the path, is distributed as noised data at s."""
    data, generator = mixture.petals(), torch.Generator().manual_seed(0)
    at = {}
    for t in (700.0, 100.0):
        x0 = data.draw(20_000, generator)
        at[t] = tcd.add_noise(mixture.SCHED, x0, torch.randn(x0.shape, generator=generator), t)
    moved = tcd.solve(data.x0, mixture.SCHED, at[700.0], 700.0, 100.0, 60, "dpmpp_2s")
    again = data.draw(20_000, generator)
    chance = mixture.sliced_wasserstein(data.draw(20_000, generator), again)
    assert mixture.sliced_wasserstein(moved, at[100.0]) < 2 * chance + 0.005


@pytest.mark.slow
@pytest.mark.parametrize("name", mixture.METHODS)
def test_every_loss_trains_a_student_that_beats_its_teacher_s_solver(name):
    teacher = mixture.petals()
    student = mixture.distil(mixture.METHODS[name].loss, teacher, steps=400)
    for steps in (1, 4):
        ours, ddim = mixture.measure(name, student, teacher, steps)
        assert ours < ddim, f"{steps} steps"
