"""Latents of teacher and student: on exact predictions for data of which all is known, and beside ComfyUI's own."""

from typing import Any

import host_process
import pytest
import torch
from exact_parts import exact_parts
from oracle import SCHEDULES, Gaussian

from training import host, options, sampling
from training.network import Parts

SIZES = [host.Size(128, 128, 0, 0, 128, 128)]


def noise_of(count):
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(5))


def teacher(parts: Any, noise, steps, solver, w=4.0):
    conds: list[Any] = [0.0] * len(noise)
    return sampling.teacher_latents(parts, conds, conds[0], SIZES * len(noise), noise, steps, solver, w)


def student(parts: Any, noise, seeds, conds: Any = None, **named):
    how = {"steps": 4, "gamma": 0.3, "tcf": "s+"} | named
    uncond: Any = 0.0
    conds = conds or [uncond] * len(noise)
    return sampling.student_latents(parts, conds, uncond, SIZES * len(noise), noise, seeds=seeds, **how)


@pytest.mark.parametrize("name", ["scaled_linear", "zero_snr", "flow", "flow_shift_3"])
def test_the_teacher_follows_the_exact_path(name):
    parts = exact_parts(SCHEDULES[name])
    made = teacher(parts, noise_of(3), 200, "dpmpp_2s")
    wanted = parts.data.path(noise_of(3).double(), parts.sched.last, parts.sched.clean)
    assert (made - wanted).abs().max() < 0.02
    assert made.dtype == torch.float32
    assert not any(parts.grads)


@pytest.mark.parametrize("name", ["scaled_linear", "zero_snr", "flow", "flow_shift_3"])
def test_an_exact_student_is_where_the_path_ends(name):
    parts = exact_parts(SCHEDULES[name])
    wanted = parts.data.path(noise_of(3).double(), parts.sched.last, parts.sched.clean)
    for steps in (1, 4):
        torch.testing.assert_close(student(parts, noise_of(3), [1, 2, 3], steps=steps, gamma=0.0), wanted.float())
    assert not any(parts.grads)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_a_sample_does_not_depend_on_its_batch(gamma):
    parts, noise = exact_parts(SCHEDULES["scaled_linear"]), noise_of(3)
    whole = student(parts, noise, [7, 8, 9], gamma=gamma)
    torch.testing.assert_close(student(parts, noise[1:2], [8], gamma=gamma), whole[1:2])
    assert (student(parts, noise[1:2], [9], gamma=gamma) - whole[1:2]).abs().max() > 0.01


def test_the_students_guidance_goes_away_from_uncond():
    parts = exact_parts(SCHEDULES["flow"])
    plain = student(parts, noise_of(1), [1], steps=1, conds=[0.5])
    torch.testing.assert_close(student(parts, noise_of(1), [1], steps=1, conds=[0.5], w=2.0) - plain, plain * 0 + 1.0)
    assert len(parts.modes) == 3  # evaluations: one, and two


def test_nothing_is_dropped_and_the_global_generator_is_left_alone():
    parts = exact_parts(SCHEDULES["scaled_linear"])
    before, modes = torch.get_rng_state(), [module.training for module in parts.trained.modules()]
    student(parts, noise_of(2), [1, 2], gamma=1.0)
    assert torch.equal(before, torch.get_rng_state())
    assert parts.modes == [[False, False, False]] * 4
    assert [module.training for module in parts.trained.modules()] == modes == [True, True, False]


def test_a_teacher_that_is_not_finite_is_named():
    parts = exact_parts(SCHEDULES["flow"])
    parts.data = Gaussian(parts.sched, mu=float("nan"))
    with pytest.raises(ValueError, match="the teacher's latents are not finite"):
        teacher(parts, noise_of(1), 1, "ddim")


# With the real tiny model and its LoRA.

CHECKPOINT = host_process.ROOT / "demo" / "tiny.safetensors"
LORA = host_process.ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
SEED = 7


@pytest.fixture(scope="module")
def loaded():
    """(models, parts whose student has the shipped LoRA)."""
    host_process.pack()
    opts = options.Options(
        pretrained_model_name_or_path=str(CHECKPOINT),
        checkpoint_loader="demo.tiny:load",
        network_weights=str(LORA),
        dim_from_weights=True,
    )
    models = host.load_teacher(opts)
    return models, Parts(models, opts)


@pytest.fixture
def hosts(monkeypatch):
    """ComfyUI's (MODEL, conditioning), without the LoRA."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(LORA.parent)], {".safetensors"}))
    model, clip, _ = host_process.run("TCD_TinyLoader")
    return model, host_process.run("CLIPTextEncode", clip=clip, text="red heart")[0]


def encoded(models, *texts):
    return [host.encode_text(models, text) for text in texts]


@pytest.mark.host
def test_the_noise_is_comfyuis(loaded):
    wanted = host_process.run("RandomNoise", noise_seed=SEED)[0].generate_noise(host_process.empty())
    assert torch.equal(sampling.initial_noise(loaded[0], (128, 128), SEED), wanted)
    assert sampling.initial_noise(loaded[0], (64, 128), SEED).shape == (1, 4, 16, 8)
    with pytest.raises(ValueError, match="must be multiples of 8, got 128 x 100"):
        sampling.initial_noise(loaded[0], (128, 100), SEED)


@pytest.mark.host
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_the_student_samples_as_comfyuis_nodes_do(loaded, hosts, gamma, monkeypatch):
    (models, parts), (model, cond) = loaded, hosts
    model, *_ = host_process.run("TCD_LoraLoader", model=model, lora=LORA.name, strength=1.0)
    noise = sampling.initial_noise(models, (128, 128), SEED)

    def theirs(seeds, x):
        drawn = host_process.module("noise").put_back(x, noise, SEED, 0)
        sampling_of = model.get_model_object("model_sampling")
        return lambda s: drawn(sampling_of.sigmas[int(s)])

    monkeypatch.setattr(sampling, "put_back", theirs)
    text = host.encode_text(models, "red heart")
    made = sampling.student_latents(parts, [text], text, SIZES, noise, 4, gamma, "1", [SEED])
    sampler, levels = host_process.tcd_sampler(gamma), host_process.sigmas(model)
    latent = host_process.sample(model, cond, sampler, levels, seed=SEED)
    assert host_process.far(made, model.model.process_latent_in(latent)) < 1e-4


@pytest.mark.host
def test_the_teacher_samples_as_comfyuis_ddim_does(loaded, hosts):
    (models, parts), (model, cond) = loaded, hosts
    noise, (text, none) = sampling.initial_noise(models, (128, 128), SEED), encoded(models, "red heart", "")
    made = sampling.teacher_latents(parts, [text], none, SIZES, noise, 4, "ddim", 3.0)
    _, clip, _ = host_process.run("TCD_TinyLoader")
    negative = host_process.run("CLIPTextEncode", clip=clip, text="")[0]
    (given,) = host_process.run("RandomNoise", noise_seed=SEED)
    (guider,) = host_process.run("CFGGuider", model=model, positive=cond, negative=negative, cfg=4.0)
    times = torch.tensor([999.0, 749.0, 499.0, 249.0])  # evenly spaced
    levels = torch.cat([model.get_model_object("model_sampling").sigma(times), torch.zeros(1)])
    wanted = host_process.run(
        "SamplerCustomAdvanced",
        noise=given,
        guider=guider,
        sampler=host_process.stock_sampler("euler"),
        sigmas=levels,
        latent_image=host_process.empty(),
    )[0]["samples"]
    assert host_process.far(made, model.model.process_latent_in(wanted)) < 1e-4
