"""TCF(S+) in ComfyUI's UNet: s is heard where it is told, and nothing else changes."""

import copy
from types import SimpleNamespace

import pytest
import torch
from host_process import far, module, run, sample, sigmas, stock_sampler, tcd_sampler
from torch import nn

import tcd

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def target_time():
    return module("target_time")


def embedding(out: int = 256) -> tcd.TargetTime:
    """An embedding for the tiny model, or a wider one, that does something."""
    torch.manual_seed(3)
    made = tcd.TargetTime(out=out, width=64)
    nn.init.normal_(made.out.weight, std=0.3)
    return made


def drawn(model, cond, s: float | None = None):
    """What the model samples, told the same s at each step."""
    if s is not None:
        model = model.clone()
        model.model_options = module("target_time").told(model.model_options, s)
    return sample(model, cond, stock_sampler("euler"), sigmas(model))


@pytest.fixture
def patched(model, target_time):
    return target_time.install(model, embedding())


def test_s_is_heard_and_without_one_the_network_is_as_it_was(model, cond, patched):
    before = drawn(model, cond)
    assert torch.equal(drawn(patched, cond), before)
    one, other = drawn(patched, cond, 0.0), drawn(patched, cond, 900.0)
    assert far(one, before) > 0.01
    assert far(one, other) > 0.01
    assert torch.equal(drawn(model, cond), before)
    assert torch.equal(drawn(model, cond, 900.0), before)


def test_comfyui_computes_what_tcd_s_network_computes(model, patched, target_time):
    unet, generator = model.model.diffusion_model, torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 16, 128, generator=generator)
    t, options = torch.tensor([999.0, 999.0]), target_time.told(patched.model_options, 250.0)
    with torch.no_grad():
        got = unet(x, t, context=context, transformer_options=dict(options["transformer_options"]))
        net = tcd.TargetTimeNet(unet, embedding())
        wanted = net(x, t, torch.tensor([250.0, 250.0]), context=context, transformer_options={})
    unet.time_embed._forward_hooks.clear()
    assert far(got, wanted) < 1e-4  # of one s, and of two in a batch


@pytest.mark.parametrize("s", [-2.0, -1.5])
def test_clean_data_has_one_time(cond, patched, s):
    assert torch.equal(drawn(patched, cond, s), drawn(patched, cond, -1.0))
    assert not torch.equal(drawn(patched, cond, -1.0), drawn(patched, cond, 0.0))


@pytest.mark.parametrize("strength", [0.5, -1.0])
def test_strength_scales_and_embeddings_add_up(model, cond, target_time, strength):
    made = embedding()
    once = target_time.install(model, made, strength)
    twice = target_time.install(target_time.install(model, made, 1.0), made, strength - 1.0)
    assert far(drawn(once, cond, 500.0), drawn(twice, cond, 500.0)) < 1e-5
    assert far(drawn(once, cond, 500.0), drawn(target_time.install(model, made), cond, 500.0)) > 0.01


def test_strength_0_is_the_teacher(model, cond, target_time):
    patched = target_time.install(model, embedding(), 0.0)
    assert target_time.is_installed(patched.model_options)
    assert torch.equal(drawn(patched, cond, 500.0), drawn(model, cond))


def test_only_the_clone_has_it(model, patched, target_time):
    assert target_time.is_installed(patched.model_options)
    assert target_time.is_installed(patched.clone().model_options)
    assert not target_time.is_installed(model.model_options)
    assert not target_time.is_installed({})
    assert model.model_options["transformer_options"] == {}


def test_another_patch_is_none_of_ours(model, target_time):
    other = model.clone()
    other.set_model_emb_patch(lambda emb, channels, options: emb)
    assert not target_time.is_installed(other.model_options)


def test_telling_edits_nothing_of_the_caller_s(patched, target_time):
    options = patched.model_options
    before = {"transformer_options": dict(options["transformer_options"])}
    told = target_time.told(options, 3)
    assert told["transformer_options"][target_time.TARGET] == 3.0
    assert told["transformer_options"]["patches"] is options["transformer_options"]["patches"]
    assert options == before
    again = target_time.told(told, 7)
    assert (again["transformer_options"][target_time.TARGET], told["transformer_options"][target_time.TARGET]) == (7, 3)
    assert target_time.told({}, 1) == {"transformer_options": {target_time.TARGET: 1.0}}


def test_clones_hear_it_too(cond, patched):
    """ComfyUI copies the options of every clone, deeply before 0.14."""
    wanted = drawn(patched, cond, 9.0)
    assert torch.equal(drawn(patched.clone().clone(), cond, 9.0), wanted)
    (ours,) = copy.deepcopy(patched.model_options)["transformer_options"]["patches"]["emb_patch"]
    with torch.no_grad():
        ours.embed.out.weight.zero_()
    assert torch.equal(drawn(patched, cond, 9.0), wanted)


def test_it_stays_float32_and_follows_to_devices(patched, target_time):
    """ComfyUI moves patches to the model's device, and to its type, which may be one that Linear cannot compute in."""
    (patch,) = patched.model_options["transformer_options"]["patches"]["emb_patch"]
    patched.model_patches_to(torch.float8_e4m3fn)
    patched.model_patches_to(torch.float16)
    assert {parameter.dtype for parameter in patch.embed.parameters()} == {torch.float32}
    moved = target_time.Patch(embedding(), 1.0).to(torch.device("meta"))
    assert {parameter.device.type for parameter in moved.embed.parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_sum_has_the_network_s_type(patched, target_time, dtype):
    (patch,) = patched.model_options["transformer_options"]["patches"]["emb_patch"]
    got = patch(torch.zeros(3, 256, dtype=dtype), 64, {target_time.TARGET: 5.0})
    assert (got.dtype, got.shape) == (dtype, (3, 256))


def test_another_width_is_refused(model, target_time):
    with pytest.raises(ValueError, match=r"the embedding of s is 320 wide, this model's embedding of t 256"):
        target_time.install(model, embedding(out=320))


def test_other_networks_are_refused(target_time):
    flux = SimpleNamespace(model=SimpleNamespace(diffusion_model=nn.Linear(1, 1)))
    with pytest.raises(ValueError, match=r"for UNets .*: ComfyUI's Linear takes no embedding of s"):
        target_time.install(flux, embedding())


def test_it_runs_through_the_nodes(model, cond, patched):
    """Guidance batches the prompt with the negative one: both hear the same s."""
    twice = patched.clone()
    twice.model_options = module("target_time").told(twice.model_options, 400.0)
    inputs = {"seed": 1, "steps": 2, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    (latent,) = run("EmptyLatentImage", width=128, height=128, batch_size=2)
    pictures = [
        run("KSampler", model=m, cfg=3.0, positive=cond, negative=cond, latent_image=latent, **inputs)[0]["samples"]
        for m in (twice, patched)
    ]
    assert far(*pictures) > 0.01


@pytest.mark.parametrize(("gamma", "wanted"), [(0.3, [531, 349, 181, -1]), (0.0, [759, 499, 259, -1])])
def test_the_sampler_tells_where_each_step_goes(cond, patched, monkeypatch, gamma, wanted):
    """To s', in the model's own timesteps; clean data is -1, as in tcd.DiscreteVP."""
    target_time, seen = module("target_time"), []

    def spied(options, s, told=target_time.told):
        seen.append(s)
        return told(options, s)

    monkeypatch.setattr(target_time, "told", spied)
    heard = sample(patched, cond, tcd_sampler(gamma, "s+"), sigmas(patched))
    assert seen == wanted
    assert far(heard, sample(patched, cond, tcd_sampler(gamma, "1"), sigmas(patched))) > 0.001
