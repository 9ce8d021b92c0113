"""TCD_Sampler and TCD_Scheduler on the tiny model, through ComfyUI's own guider and SamplerCustomAdvanced."""

from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_tcd import TCDScheduler
from host_process import adapt, empty, far, run, sample, sigmas, stock_sampler, tcd_sampler

import tcd
from training.host import Models

pytestmark = pytest.mark.host

SEED = 7


def eps_network(tiny, cond):
    """The tiny model's own UNet, called without ComfyUI's sampling code: net(x, t) -> eps."""
    context = cond[0][0]

    def net(x, t):
        return Models(*tiny).unet(x, t, context=context.expand(len(x), -1, -1), transformer_options={})

    return net


def noise_stream():
    """The generator that the sampler takes its injected noise from."""
    return torch.Generator().manual_seed(SEED + adapt().NOISE_SEED_OFFSET)


def initial_noise(batch=1):
    return run("RandomNoise", noise_seed=SEED)[0].generate_noise(empty(batch))


def recorded(model, cond, batch=1, gamma=0.3, steps=4):
    """(the trajectory that the sampler's own recorder kept, the sampled latent)."""
    model, recorder = run("TCD_RecordTrajectory", model=model)
    out = sample(model, cond, tcd_sampler(gamma), sigmas(model, steps), empty(batch), seed=SEED)
    return recorder.trajectory(), out


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_gamma_0_is_euler(model, cond, steps):
    levels = sigmas(model, steps)
    ours = sample(model, cond, tcd_sampler(gamma=0.0), levels)
    assert far(ours, sample(model, cond, stock_sampler("euler"), levels)) < 1e-6 * steps  # what each step rounds off


@pytest.mark.parametrize("grid", ["distillation", "dense"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 20, 50])
def test_the_scheduler_gives_the_reference_noise_levels(model, steps, grid):
    reference = TCDScheduler()
    reference.set_timesteps(steps, original_inference_steps=1000 if grid == "dense" else None)
    times = reference.timesteps
    alpha_bar = reference.alphas_cumprod[times]
    levels = sigmas(model, steps, grid=grid)
    assert levels[-1] == 0
    assert torch.equal(model.get_model_object("model_sampling").timestep(levels[:-1]), times)
    torch.testing.assert_close(levels[:-1], ((1 - alpha_bar) / alpha_bar).sqrt(), rtol=1e-5, atol=0)


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
    with pytest.raises(ValueError, match=r"\[1, 50\].*got 51"):
        sigmas(model, 51)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_split_sigmas_without_noise_give_the_whole(model, cond, at):
    levels = sigmas(model)
    high, low = run("SplitSigmas", sigmas=levels, step=at)
    half = {"samples": sample(model, cond, tcd_sampler(0.0), high, seed=SEED)}
    whole = sample(model, cond, tcd_sampler(0.0), levels, seed=SEED)
    assert far(sample(model, cond, tcd_sampler(0.0), low, half, seed=None), whole) < 1e-5


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_split_sigmas_with_noise_stay_finite_and_in_scale(model, cond, at):
    levels = sigmas(model)
    high, low = run("SplitSigmas", sigmas=levels, step=at)
    first = {"samples": sample(model, cond, tcd_sampler(), high, seed=SEED)}
    split = sample(model, cond, tcd_sampler(), low, first, seed=None)
    whole = sample(model, cond, tcd_sampler(), levels, seed=SEED)
    assert torch.isfinite(split).all()
    assert 0.5 < split.std() / whole.std() < 2


def test_the_same_seed_gives_the_same_bits(model, cond):
    levels, sampler = sigmas(model), tcd_sampler()
    first = sample(model, cond, sampler, levels, seed=SEED)
    assert torch.equal(first, sample(model, cond, sampler, levels, seed=SEED))
    assert not torch.equal(first, sample(model, cond, sampler, levels, seed=SEED + 1))


def test_injected_noise_is_standard_normal_and_uncorrelated_with_the_initial_noise(model, cond):
    path, _ = recorded(model, cond, batch=16)
    std = (path.s.square() - path.s_prime.square()).sqrt()[:-1]
    injected = (path.x_s - path.x_s_prime)[:-1] / std.reshape(-1, 1, 1, 1, 1)
    draws = torch.cat([initial_noise(16)[None], injected]).flatten(1)
    assert draws.shape == (4, 16 * 4 * 16 * 16)
    # 16,384 numbers: a correlation has a standard deviation of 0.008
    assert (torch.corrcoef(draws) - torch.eye(4)).abs().max() < 0.03
    assert (draws.std(1) - 1).abs().max() < 0.03


def test_inpainting_keeps_what_is_masked_out(model, cond):
    kept = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 128, 128)
    mask[..., 64:] = 1
    (latent,) = run("SetLatentNoiseMask", samples={"samples": kept}, mask=mask)
    out = sample(model, cond, tcd_sampler(), sigmas(model), latent)
    torch.testing.assert_close(out[..., :7], kept[..., :7], rtol=0, atol=1e-6)
    assert (out[..., 9:] - kept[..., 9:]).abs().min(0).values.mean() > 0.01


def test_a_batch_is_its_items_side_by_side(model, cond):
    levels, sampler = sigmas(model), tcd_sampler(0.0)
    both = sample(model, cond, sampler, levels, empty(3), seed=SEED)
    one = run("LatentFromBatch", samples=empty(3), batch_index=2, length=1)[0]
    assert far(both[2:], sample(model, cond, sampler, levels, one, seed=SEED)) < 1e-4


def test_the_callback_shows_clean_predictions(model, cond):
    seen = []
    (guider,) = run("BasicGuider", model=model, conditioning=cond)
    levels = sigmas(model)
    with torch.inference_mode():
        noise = initial_noise()
        out = guider.sample(
            noise,
            torch.zeros_like(noise),
            tcd_sampler(0.0),
            levels,
            callback=lambda i, x0, x, total: seen.append((i, x0.clone(), x.clone(), total)),
            disable_pbar=True,
            seed=SEED,
        )
    assert [(i, total) for i, _, _, total in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert torch.equal(seen[-1][1], out)
    for (i, x0, x, _), (_, _, after, _) in pairwise(seen):
        assert far(x0 + levels[i + 1] / levels[i] * (x - x0), after) < 1e-5


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("order", ["1", "2"])
def test_comfyui_units_are_exact(tiny, cond, order, gamma):
    """The same run of the package in its own variance-preserving units."""
    net, sched = eps_network(tiny, cond), Models(*tiny).sched
    # ComfyUI evaluates at the nearest whole timestep; only the midpoint of order 2 is not one already.
    predict = tcd.as_x0(lambda x, t: net(x, t.round()), sched, "eps")
    with torch.inference_mode():
        steps = tcd.sample(predict, sched, initial_noise(), tcd.timesteps(sched, 4), gamma, order, noise_stream())
        wanted = tcd.Trajectory.record(steps).final
    got = sample(tiny[0], cond, tcd_sampler(gamma, order), sigmas(tiny[0]), seed=SEED)
    assert far(got, wanted) < 1e-4


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [2, 4, 8])
def test_every_state_equals_that_of_diffusers(tiny, cond, steps, gamma):
    net, reference, generator = eps_network(tiny, cond), TCDScheduler(), noise_stream()
    reference.set_timesteps(steps)
    path, _ = recorded(tiny[0], cond, gamma=gamma, steps=steps)
    x = initial_noise()
    with torch.inference_mode():
        for i, t in enumerate(reference.timesteps):
            root = reference.alphas_cumprod[t].sqrt()
            assert far(path.x_t[i] * root, x) < 1e-4
            eps = net(x, t[None])
            assert far(path.x0[i], (x - (1 - root**2).sqrt() * eps) / root) < 1e-4
            x = reference.step(eps, int(t), x, eta=gamma, generator=generator, return_dict=False)[0]


@pytest.mark.parametrize("gamma", [1.7, -0.1, float("nan")])
def test_gamma_outside_its_range_is_refused(gamma):
    with pytest.raises(ValueError, match=rf"gamma must be in \[0, 1\], got {gamma}"):
        tcd_sampler(gamma)


def test_a_choice_outside_of_the_list_is_refused(model):
    with pytest.raises(ValueError, match=r"order must be one of 1, 2.*; got '0'"):
        tcd_sampler(order="0")
    with pytest.raises(ValueError, match="grid must be one of distillation, dense; got 'fine'"):
        sigmas(model, grid="fine")


def test_no_step_leaves_the_latent_as_it_is(model, cond):
    latent = {"samples": torch.ones(1, 4, 16, 16)}
    assert torch.equal(sample(model, cond, tcd_sampler(), sigmas(model, denoise=0.0), latent), latent["samples"])
