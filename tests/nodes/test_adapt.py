"""nodes/adapt.py on ComfyUI's own description of every kind of model: its units, its time, its grid."""

import pytest
import torch
from diffusers.schedulers.scheduling_tcd import TCDScheduler
from host_models import KINDS, MU, SPREAD, exact_end, exact_mean, exact_model, host_classes, levels, sampling_of
from host_process import adapt, sample, tcd_sampler

import tcd

pytestmark = pytest.mark.host

every_kind = pytest.mark.parametrize("kind", KINDS)


def schedule_of(kind):
    schedule, prediction, parameters = KINDS[kind]
    return adapt().schedule_of(sampling_of(schedule, prediction, **parameters))


def levels_of(kind, steps=4, k=20):
    return adapt().sigmas_of(schedule_of(kind), steps, 1.0, k)


def latent_of_mean(model):
    """A latent that is the data's mean in the units of the network, which have no scale then."""
    return {"samples": model.model.process_latent_out(torch.full((8, 4, 16, 16), MU))}


@every_kind
def test_an_exact_teacher_without_noise_ends_where_the_path_does(model, cond, kind):
    """On data N(mu, c^2) the path keeps every point at its number of standard deviations from the mean."""
    exact = exact_model(model, kind)
    dense = adapt().sigmas_of(adapt().schedule_of_model(exact), 40, 1.0, 1)
    got = model.model.process_latent_in(sample(exact, cond, tcd_sampler(0.0, "2"), dense, latent_of_mean(model)))
    assert abs(got.mean() - MU) < 0.02
    assert abs(got.std() / SPREAD - 1) < 0.02


@every_kind
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_gamma_1_on_an_exact_student_keeps_the_spread_of_every_noise_level(model, cond, kind, stop):
    exact = exact_model(model, kind, exact_end)
    part = levels_of(kind)[: stop + 1]
    got = model.model.process_latent_in(sample(exact, cond, tcd_sampler(1.0), part, latent_of_mean(model)))
    alpha, _, std = (float(v) for v in levels(exact.get_model_object("model_sampling"), part[-1:], part[-1:]))
    # ComfyUI gives a flow's state divided by alpha. The student knows clean data, s' is the lowest noise level.
    assert abs(got.mean() - MU) * alpha / std < 0.05
    assert abs(got.std() * alpha / std - 1) < 0.02 + schedule_of(kind).first


@every_kind
def test_levels_fall_from_pure_noise_to_clean_data(kind):
    levels, schedule = levels_of(kind, 50), schedule_of(kind)
    assert levels.shape == (51,)
    assert (levels.diff() < 0).all()
    assert levels[0] == pytest.approx(schedule.last, rel=1e-4)
    assert levels[-1] == 0


@every_kind
def test_training_steps_and_noise_levels_invert_each_other(kind):
    schedule = schedule_of(kind)
    index = torch.tensor([999.0, 759.0, 499.0, 19.0])
    torch.testing.assert_close(schedule.index_of(schedule.time_at(index)), index, rtol=0, atol=0.01)


@every_kind
def test_s_prime_falls_with_gamma_from_s_to_clean_data(kind):
    schedule = schedule_of(kind)
    for s in levels_of(kind)[1:-1]:
        way = [float(schedule.s_prime(s, gamma)) for gamma in (0.0, 0.1, 0.5, 0.9, 1.0)]
        assert way[0] == float(s)
        assert way == sorted(way, reverse=True)
        assert way[-1] <= schedule.first
        half = schedule.own_time(torch.tensor(way[2]))
        assert half == pytest.approx(
            float(schedule.own_time(s)) / 2, abs=20 if kind == "lcm" else 1
        )  # lcm knows every 20th


@pytest.mark.parametrize(("kind", "shift"), [("flow", 1.0), ("sd3", 3.0), ("aura", 1.73), ("flux", 3.158193)])
def test_gamma_of_flow_is_of_the_unshifted_time(kind, shift):
    schedule, flow = schedule_of(kind), tcd.RectifiedFlow(shift=shift)
    for t in (0.9, 0.5, 0.1):
        s = flow.sigma(torch.tensor(t))
        torch.testing.assert_close(schedule.s_prime(s, 0.3), flow.sigma(torch.tensor(0.7 * t)), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        levels_of(kind)[:-1], flow.sigma(torch.tensor([1.0, 0.76, 0.5, 0.26])), rtol=1e-4, atol=0
    )


def test_s_prime_is_the_floored_timestep_of_the_reference():
    sampling, schedule = sampling_of("ModelSamplingDiscrete", "EPS"), schedule_of("eps")
    for time, wanted in {759: 531, 499: 349, 259: 181}.items():
        assert torch.equal(schedule.s_prime(sampling.sigmas[time], 0.3), sampling.sigmas[wanted])


@pytest.mark.parametrize("kind", KINDS)
def test_s_prime_is_never_above_s(kind):
    schedule = schedule_of(kind)
    for s in (schedule.first * 0.99, schedule.first * 1.01, schedule.last):
        s = torch.tensor(s)
        assert schedule.s_prime(s, 0.001) <= s
    assert schedule.s_prime(torch.tensor(0.0), 0.3) == 0


@pytest.mark.parametrize("steps", range(1, 51))
def test_the_grid_is_diffusers_for_every_number_of_steps(steps):
    reference, sampling = TCDScheduler(), sampling_of("ModelSamplingDiscrete", "EPS")
    reference.set_timesteps(steps)
    assert torch.equal(levels_of("eps", steps)[:-1], sampling.sigma(reference.timesteps))


def test_a_model_of_lcm_has_its_fifty_times():
    fifty = sampling_of("ModelSamplingDiscreteDistilled", "LCM").sigmas.flip(0)
    torch.testing.assert_close(levels_of("lcm", 50)[:-1], fifty)


@every_kind
def test_times_of_ones_own(kind):
    schedule = schedule_of(kind)
    assert torch.equal(adapt().sigmas_at(schedule, " 999, 759;499\n259 "), levels_of(kind))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("999, -1", r"whole numbers from 999 .*got '-1'"),
        ("1000", "got '1000'"),
        ("1.5", "got '1.5'"),
        ("nan", "got 'nan'"),
        ("9" * 5000, "got '9"),
        ("500, 500", "times must decrease, got '500, 500'"),
        ("100 200", "times must decrease, got '100 200'"),
    ],
)
def test_times_that_cannot_be_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        adapt().sigmas_at(schedule_of("eps"), text)


def test_a_kind_that_nobody_knows_is_refused_by_name():
    class Fancy(torch.nn.Module):
        pass

    eps, flow = host_classes()["EPS"], host_classes()["ModelSamplingDiscreteFlow"]
    with pytest.raises(ValueError, match=r"does not know models of the kind Fancy / EPS; it serves SD 1\.x.*flow"):
        adapt().schedule_of(type("ModelSampling", (Fancy, eps), {})())
    with pytest.raises(ValueError, match="does not know models of the kind ModelSamplingDiscreteFlow / EPS"):
        adapt().schedule_of(type("ModelSampling", (flow, eps), {})())


def test_a_model_that_starts_from_a_picture_is_refused():
    with pytest.raises(ValueError, match="does not know models of the kind ModelSamplingDiscrete / IMG_TO_IMG"):
        adapt().schedule_of(sampling_of("ModelSamplingDiscrete", "IMG_TO_IMG"))


def test_louder_noise_of_a_flow_is_put_back_as_loud():
    """ComfyUI 0.21 and later: x = (1 - sigma) x0 + sigma noise_scale noise."""
    sampling = sampling_of("ModelSamplingDiscreteFlow", "CONST")
    sampling.noise_scale = 8.0
    loud, plain = adapt().schedule_of(sampling), schedule_of("flow")
    s = torch.tensor(0.6)
    assert loud.alpha(s) == plain.alpha(s)
    assert loud.sigma(s) == 8 * plain.sigma(s)
    torch.testing.assert_close(loud.time_of(loud.lam(s)), s)


def test_a_flow_that_is_no_shift_is_refused_by_name():
    sampling = sampling_of("ModelSamplingDiscreteFlow", "CONST")
    sampling.sigmas = sampling.sigmas**2
    with pytest.raises(ValueError, match="does not know the flow of ModelSamplingDiscreteFlow"):
        adapt().schedule_of(sampling)


def test_the_exact_prediction_is_the_mean_by_bayes_rule():
    """A check of the tests' own oracle, on a grid."""
    x0 = torch.linspace(-5, 6, 20001, dtype=torch.float64)
    x, sigma = torch.tensor([[1.3]], dtype=torch.float64), torch.tensor([0.8], dtype=torch.float64)
    weight = torch.exp(-((x0 - MU) ** 2) / (2 * SPREAD**2) - (x - x0) ** 2 / (2 * sigma**2))[0]
    mean = (weight * x0).sum() / weight.sum()
    torch.testing.assert_close(exact_mean(None, x, sigma)[0, 0], mean)
