"""The same network through ComfyUI's SamplerCustom with our nodes, and through diffusers' TCDScheduler."""

import pytest
import torch
from diffusers.schedulers import scheduling_tcd
from host_models import model_of
from host_process import empty, far, module, run, sigmas, tcd_sampler

import tcd
from training.host import Models

pytestmark = pytest.mark.host

SEED = 7
START = {"samples": torch.zeros(2, 4, 16, 16)}


def random_net(x, t):
    """A network of no meaning, bounded, that depends on every state and time."""
    kernel = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(5)) / 6
    return torch.tanh(torch.conv2d(x, kernel, padding=1) + (t / 1000).reshape(-1, 1, 1, 1))


def noise_stream(levels, like):
    """What our sampler puts back at each level, in turn."""
    draw = module("noise").put_back(like, torch.zeros_like(like), SEED, 0)
    return iter([draw(s) for s in levels[1:]])


def by_diffusers(net, kind, steps, gamma, stream):
    """The latent of diffusers' loop, with the noise of `stream` in place of its own."""
    scheduler = scheduling_tcd.TCDScheduler(prediction_type={"eps": "epsilon", "v": "v_prediction"}[kind])
    scheduler.set_timesteps(steps)
    x = run("RandomNoise", noise_seed=SEED)[0].generate_noise(START)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_tcd, "randn_tensor", lambda *args, **named: next(stream))
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t[None].float()), int(t), x, eta=gamma, return_dict=False)[0]
    return x


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 20])
@pytest.mark.parametrize("kind", ["eps", "v"])
def test_sampler_custom_gives_the_latent_of_diffusers(model, cond, kind, steps, gamma):
    made = model_of(model, kind, random_net)
    levels = sigmas(made, steps)
    inputs = {"add_noise": True, "noise_seed": SEED, "cfg": 1.0, "positive": cond, "negative": cond}
    inputs |= {"sampler": tcd_sampler(gamma, last_step="t0"), "sigmas": levels, "latent_image": START}
    got = run("SamplerCustom", model=made, **inputs)[0]["samples"]
    wanted = by_diffusers(random_net, kind, steps, gamma, noise_stream(levels, START["samples"]))
    assert far(model.model.process_latent_in(got), wanted) < 1e-4


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [2, 4, 8])
def test_every_state_of_the_tiny_model_equals_that_of_diffusers(tiny, cond, steps, gamma):
    context = cond[0][0]

    def net(x, t):
        return Models(*tiny).unet(x, t, context=context.expand(len(x), -1, -1), transformer_options={})

    model, recorder = run("TCD_RecordTrajectory", model=tiny[0])
    levels = sigmas(model, steps)
    (guider,) = run("BasicGuider", model=model, conditioning=cond)
    inputs = {"noise": run("RandomNoise", noise_seed=SEED)[0], "guider": guider, "sampler": tcd_sampler(gamma)}
    run("SamplerCustomAdvanced", **inputs, sigmas=levels, latent_image=empty())
    path = recorder.trajectory()

    scheduler = scheduling_tcd.TCDScheduler()
    scheduler.set_timesteps(steps)
    stream = noise_stream(levels, path.x_t[0])
    x = inputs["noise"].generate_noise(empty())
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_tcd, "randn_tensor", lambda *args, **named: next(stream))
        for i, t in enumerate(scheduler.timesteps):
            root = scheduler.alphas_cumprod[t].sqrt()
            assert far(path.x_t[i] * root, x) < 1e-4
            eps = net(x, t[None])
            assert far(path.x0[i], (x - (1 - root**2).sqrt() * eps) / root) < 1e-4
            x = scheduler.step(eps, int(t), x, eta=gamma, return_dict=False)[0]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("order", ["1", "2"])
@pytest.mark.parametrize("kind", ["eps", "v"])
def test_comfyui_units_give_what_tcd_gives_in_its_own(model, cond, kind, order, gamma):
    made, sched = model_of(model, kind, random_net), tcd.DiscreteVP.scaled_linear()
    # ComfyUI evaluates at the nearest whole timestep; only the midpoint of order 2 is not one already.
    predict = tcd.as_x0(lambda x, t: random_net(x, t.round()), sched, kind)
    levels = sigmas(made)
    stream = noise_stream(levels, START["samples"])
    start = run("RandomNoise", noise_seed=SEED)[0].generate_noise(START)
    times = tcd.timesteps(sched, 4)
    *_, last = tcd.sample(predict, sched, start, times, gamma, order, noise=lambda s: next(stream))
    inputs = {"add_noise": True, "noise_seed": SEED, "cfg": 1.0, "positive": cond, "negative": cond}
    inputs |= {"sampler": tcd_sampler(gamma, order), "sigmas": levels, "latent_image": START}
    got = run("SamplerCustom", model=made, **inputs)[0]["samples"]
    assert far(model.model.process_latent_in(got), last.x_s) < 1e-4
