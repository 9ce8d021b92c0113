"""The sampler with what artists combine it with: each comes through at every step, as it does through `euler`."""

import copy

import pytest
import torch
from host_process import ROOT, empty, far, run, sigmas, stock_sampler, tcd_sampler
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.host

LORA = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"


@pytest.fixture(scope="module")
def words(tiny):
    """Three prompts, encoded."""
    return [run("CLIPTextEncode", clip=tiny[1], text=text)[0] for text in ("red heart", "cat face", "")]


@pytest.fixture
def loras(tmp_path, monkeypatch):
    """A folder with two style LoRAs."""
    import folder_paths

    for seed in (1, 2):
        state, generator = load_file(LORA), torch.Generator().manual_seed(seed)
        for key in (key for key in state if key.endswith("lora_up.weight")):
            state[key] = (torch.randn(state[key].shape, generator=generator) * 0.02).half()
        save_file(state, tmp_path / f"style{seed}.safetensors")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


def draw(guider, model, sampler, latent=None):
    inputs = {"noise": run("RandomNoise", noise_seed=7)[0], "guider": guider, "sampler": sampler}
    inputs |= {"sigmas": sigmas(model, 4), "latent_image": empty(2) if latent is None else latent}
    return run("SamplerCustomAdvanced", **inputs)[0]["samples"]


def comes_through(model, guider, plain):
    """gamma 0 is `euler` under the same guider; with noise it is repeatable, and not what it is without."""
    assert far(draw(guider, model, tcd_sampler(0.0)), draw(guider, model, stock_sampler("euler"))) < 1e-5
    noisy = draw(guider, model, tcd_sampler(0.3))
    assert torch.equal(noisy, draw(guider, model, tcd_sampler(0.3)))
    assert far(noisy, draw(plain, model, tcd_sampler(0.3))) > 1e-3


@pytest.fixture
def basic(model, words):
    return run("BasicGuider", model=model, conditioning=words[0])[0]


def guiders(model, words):
    positive, second, negative = words
    perp = {"empty_conditioning": negative, "neg_scale": 1.0, "cfg": 3.0, "negative": second, "positive": positive}
    dual = {"cond1": positive, "cond2": second, "negative": negative, "cfg_conds": 3.0, "cfg_cond2_negative": 2.0}
    return {
        "CFGGuider": {"positive": positive, "negative": negative, "cfg": 3.0},
        "DualCFGGuider": {**dual, "style": "regular"},
        "PerpNegGuider": perp,
    }


@pytest.mark.parametrize("name", ["CFGGuider", "DualCFGGuider", "PerpNegGuider"])
def test_guiders(model, words, basic, name):
    comes_through(model, run(name, model=model, **guiders(model, words)[name])[0], basic)


def test_areas_and_combined_prompts(model, words, basic):
    (right,) = run("ConditioningSetArea", conditioning=words[1], width=64, height=128, x=64, y=0, strength=1.0)
    (both,) = run("ConditioningCombine", conditioning_1=words[0], conditioning_2=right)
    comes_through(model, run("BasicGuider", model=model, conditioning=both)[0], basic)


def test_prompts_for_a_part_of_the_way(model, words, basic):
    (early,) = run("ConditioningSetTimestepRange", conditioning=words[0], start=0.0, end=0.5)
    (late,) = run("ConditioningSetTimestepRange", conditioning=words[1], start=0.5, end=1.0)
    (both,) = run("ConditioningCombine", conditioning_1=early, conditioning_2=late)
    comes_through(model, run("BasicGuider", model=model, conditioning=both)[0], basic)


def control():
    """A ControlNet in the smallest form that ComfyUI takes: what it adds depends on x and on the time."""
    from comfy.controlnet import ControlBase

    class Control(ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            wave = 30 * torch.cos(t / 3).reshape(-1, 1, 1, 1) * torch.tanh(x_noisy.mean(1, keepdim=True))
            small = torch.nn.functional.adaptive_avg_pool2d(wave, 4)
            return {"input": [], "middle": [small.expand(-1, 1, -1, -1)], "output": []}

        def copy(self):
            return copy.copy(self)

        def get_models(self):
            return []

    return Control()


def test_controlnet(model, words, basic):
    controlled = [[words[0][0][0], {**words[0][0][1], "control": control(), "control_apply_to_uncond": False}]]
    comes_through(model, run("BasicGuider", model=model, conditioning=controlled)[0], basic)


def test_a_stack_of_style_loras(model, words, basic, loras):
    made, _ = run(
        "LoraLoader", model=model, clip=None, lora_name="style1.safetensors", strength_model=0.5, strength_clip=0
    )
    (made,) = run("LoraLoaderModelOnly", model=made, lora_name="style2.safetensors", strength_model=-0.7)
    comes_through(made, run("BasicGuider", model=made, conditioning=words[0])[0], basic)


def test_hooks_that_switch_a_lora_on_for_a_part_of_the_way(model, words, basic, loras):
    hooks = run("CreateHookLoraModelOnly", lora_name="style1.safetensors", strength_model=1.0)[0]
    (late,) = run("CreateHookKeyframe", strength_mult=0.0, start_percent=0.0)
    (late,) = run("CreateHookKeyframe", strength_mult=1.0, start_percent=0.4, prev_hook_kf=late)
    (hooks,) = run("SetHookKeyframes", hooks=hooks, hook_kf=late)
    (hooked,) = run("ConditioningSetProperties", cond_NEW=words[0], strength=1.0, set_cond_area="default", hooks=hooks)
    comes_through(model, run("BasicGuider", model=model, conditioning=hooked)[0], basic)


def test_attention_patches_such_as_ip_adapters(model, words, basic):
    """They add to what cross-attention gives, by the noise level."""
    made = model.clone()
    seen = []

    def more(q, k, v, extra_options):
        seen.append(float(extra_options["sigmas"][0]))
        return q, k, v * (1.5 if extra_options["sigmas"][0] > 1 else 0.5)

    made.set_model_attn2_patch(more)
    comes_through(made, run("BasicGuider", model=made, conditioning=words[0])[0], basic)
    assert set(seen) == set(sigmas(model, 4)[:-1].tolist())


def test_functions_around_the_network_and_its_guidance(model, words, basic):
    made = model.clone()
    made.set_model_unet_function_wrapper(lambda apply, args: 0.9 * apply(args["input"], args["timestep"], **args["c"]))
    made.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.95)
    comes_through(made, run("BasicGuider", model=made, conditioning=words[0])[0], basic)


def test_differential_diffusion_asks_for_its_mask_at_every_level(model, words):
    (made,) = run("DifferentialDiffusion", model=model, strength=1.0)
    mask = torch.linspace(0, 1, 128).expand(1, 128, 128)
    samples = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    (latent,) = run("SetLatentNoiseMask", samples={"samples": samples}, mask=mask)
    guider = run("BasicGuider", model=made, conditioning=words[0])[0]
    ours, euler = (draw(guider, made, sampler, latent) for sampler in (tcd_sampler(0.0), stock_sampler("euler")))
    assert far(ours, euler) < 1e-5


def test_clones_and_other_samplers_are_left_as_they_were(model, words, basic):
    before = draw(basic, model, stock_sampler("euler_ancestral"))
    draw(basic, model, tcd_sampler(0.3))
    assert torch.equal(before, draw(basic, model, stock_sampler("euler_ancestral")))
