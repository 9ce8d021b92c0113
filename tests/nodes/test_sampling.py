"""TCD_Sampler, TCD_Scheduler, TCD_GammaSchedule and TCD_KSampler: what their inputs do, and which they refuse."""

import pytest
import torch
from host_models import model_of
from host_process import empty, far, module, run, sample, sigmas, tcd_sampler

import tcd

pytestmark = pytest.mark.host


def settings(**named):
    return module("settings").Settings("tcd", **named)


def scheduler(model, **named):
    inputs = {"steps": 4, "denoise": 1.0, "grid": "distillation", "times": ""}
    return run("TCD_Scheduler", model=model, **inputs | named)[0]


def gammas(start=0.5, end=0.1, curve="linear", values=""):
    return run("TCD_GammaSchedule", start=start, end=end, curve=curve, values=values)[0]


def ksampler(model, cond, **named):
    inputs = {"seed": 0, "steps": 4, "cfg": 1.0, "gamma": 0.3, "order": "1", "positive": cond, "negative": cond}
    inputs |= {"latent": empty(), "denoise": 1.0, "grid": "distillation", "last_step": "x0"}
    return run("TCD_KSampler", model=model, **inputs | named)


@pytest.mark.parametrize(("grid", "k"), [("distillation", 20), ("dense", 1)])
def test_the_scheduler_gives_the_noise_levels_of_the_tcd_package(model, grid, k):
    sched = tcd.DiscreteVP.scaled_linear()
    times = tcd.timesteps(sched, 6, k)
    torch.testing.assert_close(
        sigmas(model, 6, grid=grid)[:-1], sched.sigma(times) / sched.alpha(times), rtol=1e-5, atol=0
    )


def test_denoise_below_1_keeps_the_last_steps_of_a_longer_schedule(model):
    assert torch.equal(sigmas(model, 4, denoise=0.5), sigmas(model, 8)[-5:])
    assert len(sigmas(model, 4, denoise=0.0)) == 0


def test_more_steps_than_the_grid_has_are_refused(model):
    assert len(sigmas(model, 50)) == 51
    assert len(sigmas(model, 51, grid="dense")) == 52
    with pytest.raises(ValueError, match=r"\[1, 50\].*got 51; take fewer, or the dense grid"):
        sigmas(model, 51)
    with pytest.raises(ValueError, match=r"30 steps at denoise 0\.5: .*got 60"):
        sigmas(model, 30, denoise=0.5)


def test_times_of_ones_own_replace_steps_and_grid(model):
    assert torch.equal(scheduler(model, times="999, 759, 499, 259", steps=7, grid="dense"), sigmas(model, 4))
    assert torch.equal(scheduler(model, times="499 259"), sigmas(model, 4)[2:])
    with pytest.raises(ValueError, match=r"denoise must be 1 with times of your own, got 0\.5"):
        scheduler(model, times="499", denoise=0.5)


def test_settings_replace_the_steps(model):
    assert torch.equal(scheduler(model, steps=4, settings=settings(steps=2)), sigmas(model, 2))


def test_settings_replace_gamma_and_order(model, cond):
    told = tcd_sampler(0.9, "2", settings=settings(gamma=0.0, order="1"))
    assert torch.equal(sample(model, cond, told, sigmas(model)), sample(model, cond, tcd_sampler(0.0), sigmas(model)))


def test_a_gamma_schedule_replaces_gamma(model, cond):
    def drawn(**named):
        return sample(model, cond, tcd_sampler(**named), sigmas(model))

    assert torch.equal(drawn(gamma=0.9, gammas=gammas(0.3, 0.3)), drawn(gamma=0.3))
    assert torch.equal(drawn(gammas=gammas(values="0.3, 0.3, 0.3, 0.8")), drawn(gamma=0.3))
    assert torch.equal(drawn(gammas=gammas(values="0.3 0.3 0.3")), drawn(gamma=0.3))
    assert not torch.equal(drawn(gammas=gammas(0.3, 0.2)), drawn(gamma=0.3))


@pytest.mark.parametrize("curve", ["linear", "smooth", "early", "late"])
def test_a_curve_goes_from_start_to_end(model, curve):
    schedule, levels = module("adapt").schedule_of_model(model), sigmas(model, 50)
    along = gammas(0.8, 0.2, curve).along(schedule, levels)
    assert along[0] == pytest.approx(0.8)
    assert along[-1] == pytest.approx(0.2)
    assert along == sorted(along, reverse=True)
    assert torch.tensor(along).diff().abs().max() < 0.03


def test_a_curve_knows_where_it_is_on_split_sigmas(model):
    schedule, levels = module("adapt").schedule_of_model(model), sigmas(model, 8)
    made = gammas(0.8, 0.2, "early")
    assert made.along(schedule, levels[1:]) == made.along(schedule, levels[1:4]) + made.along(schedule, levels[4:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.3, x", r"values must be numbers in \[0, 1\].*got 'x'"),
        ("0.3, 1.7", r"values must be numbers in \[0, 1\].*got '1\.7'"),
        ("nan", r"values must be numbers in \[0, 1\].*got 'nan'"),
    ],
)
def test_bad_values_of_gamma_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        gammas(values=text)


def test_another_number_of_gammas_than_steps_is_named(model, cond):
    with pytest.raises(ValueError, match="4 steps need as many values of gamma, got 2"):
        sample(model, cond, tcd_sampler(gammas=gammas(values="0.3, 0.2")), sigmas(model))


@pytest.mark.parametrize("order", ["1", "2"])
@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_the_ksampler_is_the_nodes_that_it_stands_for(model, cond, order, denoise):
    latent = {"samples": torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))}
    got, denoised, _ = ksampler(model, cond, seed=7, gamma=0.4, order=order, latent=latent, denoise=denoise)
    wanted = sample(model, cond, tcd_sampler(0.4, order), sigmas(model, 4, denoise), latent, seed=7)
    assert torch.equal(got["samples"], wanted)
    assert far(denoised["samples"], wanted) < 1e-6


def test_the_ksampler_guides(tiny, cond):
    negative = run("CLIPTextEncode", clip=tiny[1], text="")[0]
    inputs = {"add_noise": True, "noise_seed": 0, "cfg": 3.0, "positive": cond, "negative": negative}
    inputs |= {"sampler": tcd_sampler(), "sigmas": sigmas(tiny[0]), "latent_image": empty()}
    wanted = run("SamplerCustom", model=tiny[0], **inputs)[0]["samples"]
    assert torch.equal(ksampler(tiny[0], cond, cfg=3.0, negative=negative)[0]["samples"], wanted)
    assert not torch.equal(ksampler(tiny[0], cond, cfg=1.0, negative=negative)[0]["samples"], wanted)


def test_the_ksampler_gives_its_trajectory(model, cond):
    got, _, recorder = ksampler(model, cond)
    path = recorder.trajectory()
    assert len(path) == 4
    assert far(model.model.process_latent_out(path.final), got["samples"]) < 1e-6
    assert (path.s_prime[:-1] < path.s[:-1]).all()  # what no callback tells: our own recorder was there


def test_settings_replace_all_that_the_ksampler_has_of_them(model, cond):
    told = settings(steps=2, cfg=1.0, gamma=0.0, order="2")
    wanted = ksampler(model, cond, steps=2, cfg=1.0, gamma=0.0, order="2")[0]["samples"]
    got = ksampler(model, cond, steps=5, cfg=4.0, gamma=0.9, order="1", settings=told)[0]["samples"]
    assert torch.equal(got, wanted)


def test_the_ksampler_keeps_what_is_masked_out(model, cond):
    kept = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 128, 128)
    mask[..., 64:] = 1
    (latent,) = run("SetLatentNoiseMask", samples={"samples": kept}, mask=mask)
    got = ksampler(model, cond, latent=latent)[0]["samples"]
    torch.testing.assert_close(got[..., :7], kept[..., :7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("gamma", [1.7, -0.1, float("nan")])
def test_gamma_outside_its_range_is_refused(gamma):
    with pytest.raises(ValueError, match=rf"gamma must be in \[0, 1\], got {gamma}"):
        tcd_sampler(gamma)
    with pytest.raises(ValueError, match=rf"start must be from 0 to 1, got {gamma}"):
        gammas(gamma)


def test_a_choice_outside_of_the_list_is_refused(model):
    with pytest.raises(ValueError, match=r"order must be one of 1, 2, s\+; got '0'"):
        tcd_sampler(order="0")
    with pytest.raises(ValueError, match=r"last_step must be one of x0, t0; got 'x'"):
        tcd_sampler(last_step="x")
    with pytest.raises(ValueError, match=r"grid must be one of distillation, dense; got 'fine'"):
        sigmas(model, grid="fine")
    with pytest.raises(ValueError, match="curve must be one of linear, smooth, early, late; got 'round'"):
        gammas(curve="round")


def test_a_network_that_gives_nan_is_named_with_its_step(model, cond):
    broken = model_of(model, "eps", lambda x, t: x * (float("nan") if t[0] < 600 else 1.0))
    with pytest.raises(ValueError, match=r"step 2: the network's prediction at t = .* is not finite"):
        sample(broken, cond, tcd_sampler(), sigmas(model))
