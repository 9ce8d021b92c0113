"""What is wrong in other TCD packs for ComfyUI, each seen in one of them: here it must be right.

Parity with diffusers, which they approximate, is in test_diffusers.py; every kind of model in test_sampler.py.
"""

import pytest
import torch
from host_models import KINDS, exact_model, patched
from host_process import adapt, empty, far, run, sample, sigmas, tcd_sampler

pytestmark = pytest.mark.host


def custom(model, cond, levels, latent, seed=7, add_noise=True):
    inputs = {"add_noise": add_noise, "noise_seed": seed, "cfg": 1.0, "positive": cond, "negative": cond}
    inputs |= {"sampler": tcd_sampler(), "sigmas": levels, "latent_image": latent}
    return run("SamplerCustom", model=model, **inputs)


def test_split_sigmas_gave_nan_as_levels_were_baked_in_by_step(model, cond):
    levels = sigmas(model, 8)
    for at in range(9):
        high, low = run("SplitSigmas", sigmas=levels, step=at)
        first = custom(model, cond, high, empty())[0]
        assert custom(model, cond, low, first, add_noise=False)[0]["samples"].isfinite().all()


def test_one_sampler_object_serves_every_number_of_steps(model, cond):
    sampler = tcd_sampler()
    for steps in (8, 2, 5):
        alone = sample(model, cond, tcd_sampler(), sigmas(model, steps))
        assert torch.equal(sample(model, cond, sampler, sigmas(model, steps)), alone)


def test_denoise_0_was_an_index_error(model, cond):
    latent = {"samples": torch.ones(1, 4, 16, 16)}
    assert torch.equal(sample(model, cond, tcd_sampler(), sigmas(model, denoise=0.0), latent), latent["samples"])


def test_every_model_was_taken_for_an_eps_prediction(model, cond):
    drawn = {kind: sample(patched(model, kind), cond, tcd_sampler(), sigmas(model)) for kind in ("eps", "v", "x0")}
    assert far(drawn["v"], drawn["eps"]) > 0.01
    assert far(drawn["x0"], drawn["eps"]) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_zero_terminal_snr_and_flow_had_the_noise_levels_of_sd_1(model, kind):
    made = patched(model, kind)
    sampling = made.get_model_object("model_sampling")
    assert sigmas(made)[0] == pytest.approx(float(sampling.sigma_max), rel=1e-4)


def test_previews_showed_the_noisy_state(model, cond):
    exact = exact_model(model, "eps", lambda sampling, x, sigma: torch.full_like(x, 0.25))
    latent, denoised = custom(exact, cond, sigmas(model)[:3], empty())  # stops at noise
    assert torch.equal(model.model.process_latent_in(denoised["samples"]), torch.full((1, 4, 16, 16), 0.25))
    assert model.model.process_latent_in(latent["samples"]).std() > 0.3


def test_the_noise_of_the_steps_had_no_seed(model, cond):
    levels = sigmas(model)
    first = custom(model, cond, levels, empty())[0]["samples"]
    torch.randn(100)
    assert torch.equal(first, custom(model, cond, levels, empty())[0]["samples"])


def test_more_steps_than_times_repeated_noise_levels(model):
    for steps in (1, 7, 49, 50):
        assert (sigmas(model, steps).diff() < 0).all()
    with pytest.raises(ValueError, match="take fewer, or the dense grid"):
        sigmas(model, 30, denoise=0.5)


def test_gamma_was_of_the_current_time(model):
    """s' = (1 - gamma) of where the step goes, not of where it comes from."""
    schedule, levels = adapt().schedule_of_model(model), sigmas(model)
    assert float(schedule.own_time(schedule.s_prime(levels[1], 0.3))) == 531  # of 759; of 999 it would be 699


@pytest.mark.parametrize("kind", KINDS)
def test_gamma_had_a_dead_zone_below_a_quarter(model, kind):
    """Every gamma puts noise back, at every step, and more gamma more."""
    made = patched(model, kind)
    schedule = adapt().schedule_of_model(made)
    for s in sigmas(made)[1:-1]:
        kept = [float(schedule.s_prime(s, gamma)) for gamma in (0.0, 0.05, 0.1, 0.2, 0.4)]
        assert kept == sorted(set(kept), reverse=True)


def test_small_gammas_made_no_difference(model, cond):
    drawn = [sample(model, cond, tcd_sampler(gamma), sigmas(model)) for gamma in (0.0, 0.02, 0.3, 0.32)]
    assert far(drawn[0], drawn[1]) > 1e-3
    assert far(drawn[2], drawn[3]) > 1e-3


def test_some_noise_gave_a_black_picture(model, cond):
    """The variance that is put back came out below zero."""
    for gamma in (1e-4, 0.001, 0.5, 0.999, 1.0):
        for levels in (sigmas(model, 50), sigmas(model, 200, grid="dense"), sigmas(model)[-2:]):
            assert sample(model, cond, tcd_sampler(gamma), levels[-4:]).isfinite().all()


def test_inputs_were_written_to_and_things_printed(model, cond, capsys):
    levels, latent = sigmas(model), {"samples": torch.ones(1, 4, 16, 16)}
    before = levels.clone(), latent["samples"].clone()
    options = repr(model.model_options)
    custom(model, cond, levels, latent)
    assert torch.equal(levels, before[0])
    assert torch.equal(latent["samples"], before[1])
    assert list(latent) == ["samples"]
    assert repr(model.model_options) == options
    assert capsys.readouterr().out == ""
