"""The teacher, as the options want it: each changes what it says, and what cannot be is refused by name."""

import math
from types import SimpleNamespace
from typing import Any

import host_process
import pytest
import small_models
import torch
from host_process import far

import tcd
from training import host, options
from training.host import Network, Size

pytestmark = [pytest.mark.host, pytest.mark.slow]

SIZE = Size(64, 64, 0, 0, 64, 64)


def teacher(family: str, **named) -> host.Models:
    """What the options give; the small models look into no file."""
    host_process.pack()
    made: dict[str, Any] = {
        "pretrained_model_name_or_path": "small.safetensors",
        "checkpoint_loader": f"small_models:{family}",
    }
    return host.load_teacher(options.Options(**(made | named)))


def output(models: host.Models, t: float = 500.0) -> torch.Tensor:
    """What the network says to one noise and text."""
    channels = models.model.model.latent_format.latent_channels
    x = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    cond = small_models.load("sd15")[1].encode_from_tokens({"l": ["a"]}, True, True)["cond"]
    with torch.no_grad():
        return Network(models)(x, models.sched.time_at(torch.tensor([t])), [host.Cond(cond)], [SIZE])


def test_other_predictions_and_louder_noise_are_refused_by_name(monkeypatch):
    models = teacher("sd3")
    monkeypatch.setattr(models.sampling, "noise_scale", 2.0, raising=False)
    with pytest.raises(ValueError, match="CONST with ModelSamplingDiscreteFlow has noise of scale 2"):
        models.sched  # noqa: B018

    def edm(path, dtype):
        import comfy.model_base as base

        found = small_models.sd15()
        found[0].model.model_sampling = base.model_sampling(found[0].model.model_config, base.ModelType.EDM)
        return found

    monkeypatch.setattr(small_models, "edm", edm, raising=False)
    with pytest.raises(ValueError, match="can be distilled, not EDM with ModelSamplingContinuousEDM"):
        teacher("edm")


def test_v2_is_checked():
    assert teacher("sd2", v2=True).architecture == "SD20"
    with pytest.raises(ValueError, match=r"v2 says that this is an SD 2\.x, ComfyUI says SD15"):
        teacher("sd15", v2=True)


def test_v_parameterization_and_zero_terminal_snr_change_prediction_and_schedule():
    plain, v, zero = teacher("sd2"), teacher("sd2", v_parameterization=True), teacher("v_zsnr")
    both = teacher("sd2", v_parameterization=True, zero_terminal_snr=True)
    assert [models.kind for models in (plain, v, zero, both)] == ["eps", "v", "v", "v"]
    last = [float(models.sched.alpha(999.0)) for models in (plain, v, zero, both)]
    assert last == pytest.approx([0.0683, 0.0683, 2.2e-4, 2.2e-4], rel=0.01)
    assert both.model.model.model_type.name == "V_PREDICTION"  # which CheckpointSave writes down


def test_zero_terminal_snr_goes_with_a_checkpoint_that_says_v_itself():
    assert float(teacher("v_zsnr", zero_terminal_snr=True).sched.alpha(999.0)) < 1e-3
    assert float(teacher("v_zsnr", v_parameterization=True).sched.alpha(999.0)) < 1e-3  # it stays what it was
    with pytest.raises(ValueError, match="zero_terminal_snr needs a model that predicts v, this one predicts eps"):
        teacher("sd15", zero_terminal_snr=True)


@pytest.mark.parametrize("option", ["v_parameterization", "zero_terminal_snr"])
def test_a_flow_model_has_no_such_thing(option):
    with pytest.raises(ValueError, match="are not for a flow model"):
        teacher("sd3", **{option: True})


@pytest.mark.parametrize(
    ("family", "own"), [("sd3", 3.0), ("flux", math.exp(1.15)), ("lumina2", 6.0), ("z_image", 3.0)]
)
def test_the_shift_of_a_flow_model_is_its_own_or_the_wanted_one(family, own):
    plain, shifted = teacher(family), teacher(family, discrete_flow_shift=1.5)
    assert isinstance(plain.sched, tcd.RectifiedFlow)
    assert isinstance(shifted.sched, tcd.RectifiedFlow)
    assert (plain.sched.shift, shifted.sched.shift) == pytest.approx((own, 1.5), rel=1e-5)
    level = torch.tensor([0.3])
    assert plain.sampling.timestep(level) == shifted.sampling.timestep(
        level
    )  # what the network is told of a noise level


def test_other_models_have_no_shift():
    with pytest.raises(ValueError, match="discrete_flow_shift is for flow models, this one predicts eps"):
        teacher("sd15", discrete_flow_shift=3.0)


def test_clip_skip_chooses_the_layer():
    plain, last, second = (teacher("sd15", clip_skip=skip) for skip in (0, 1, 2))
    a, b, c = (host.encode_text(models, "a cat").cross for models in (plain, last, second))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert second.clip.layer == -2


def test_base_weights_are_merged_with_their_strengths(tmp_path):
    plain, paths = teacher("sd15"), [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    adapters = []
    for seed, path in enumerate(paths):
        adapter = tcd.lora.inject(plain.unet, rank=2)
        generator = torch.Generator().manual_seed(seed)
        for layer in adapter.paths.values():
            for factor in layer.factors.values():
                factor.data = 0.1 * torch.randn(factor.shape, generator=generator)
        tcd.lora.save(path, adapter, dtype=torch.float32)
        adapter.remove()
        adapters.append(adapter)
    before = output(plain)
    merged = output(teacher("sd15", base_weights=tuple(map(str, paths)), base_weights_multiplier=(0.5, -2.0)))
    plain_merged = output(teacher("sd15", base_weights=(str(paths[0]),)))
    state = plain.unet.state_dict()
    for adapter, strength in zip(adapters, (0.5, -2.0), strict=True):
        tcd.lora.merge(plain.unet, adapter, strength)
    assert state.keys() == plain.unet.state_dict().keys()
    assert far(merged, output(plain)) < 1e-6
    assert far(merged, before) > 0.01
    assert far(plain_merged, before) > 0.01
    assert far(plain_merged, merged) > 0.01


def test_the_text_encoder_can_go():
    models = teacher("sd15")
    released = host.release(models)
    assert released.clip is None
    assert released.unet is models.unet
    assert host.place(released, torch.device("cpu")) is released


def test_a_model_under_comfyuis_management_is_taken_out_of_it():
    models = teacher("sd15")
    import comfy.model_management as management

    management.load_models_gpu([models.model])
    assert models.model.model in [loaded.model.model for loaded in management.current_loaded_models]
    host.place(models)
    assert models.model.model not in [loaded.model.model for loaded in management.current_loaded_models]
    assert models.device == management.get_torch_device()


def test_an_encoder_may_give_more_than_tensors():
    found = {"cond": torch.ones(1, 2, 3, dtype=torch.float16), "pooled_output": None, "note": "x"}
    clip = SimpleNamespace(tokenize=str.split, encode_from_tokens=lambda tokens, **_: found)
    cond = host.encode_text(host.Models(None, clip, None), "a")
    assert cond.cross.dtype == torch.float32
    assert cond.tensors().keys() == {"cross"}
