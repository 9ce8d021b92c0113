"""Which gamma, steps and cfg a LoRA gets: by our metadata, by its published name, or as a guess."""

import dataclasses

import pytest
from host_process import module

from training import metadata, options

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def settings():
    return module("settings")


# Name of a published file -> gamma, steps, cfg
NAMES = {
    "TCD-SD15-LoRA.safetensors": (0.3, 4, 1),
    "tcd_sdxl_lora.safetensors": (0.3, 4, 1),
    "TCD-SDXL-LoRA/pytorch_lora_weights.safetensors": (0.3, 4, 1),
    "fast\\TCD-SD21-base-LoRA\\pytorch_lora_weights.safetensors": (0.3, 4, 1),
    "lcm-lora-sdv1-5.safetensors": (1, 4, 1),
    "LCM_LoRA_Weights_SD15.safetensors": (1, 4, 1),
    "sd15 lcm.safetensors": (1, 4, 1),
    "Hyper-SDXL-1step-lora.safetensors": (0.5, 4, 1),
    "Hyper-SD15-1step-lora.safetensors": (0.5, 4, 1),
    "Hyper-SDXL-unified.safetensors": (0.5, 4, 1),
    "Hyper-SDXL-2steps-lora.safetensors": (0, 2, 1),
    "Hyper-SD15-4steps-lora.safetensors": (0, 4, 1),
    "Hyper-SDXL-8steps-lora.safetensors": (0, 8, 1),
    "Hyper-SDXL-8steps-CFG-lora.safetensors": (0, 8, 5),
    "Hyper-SD15-12steps-CFG-lora.safetensors": (0, 12, 5),
    "Hyper-SD3-4steps-CFG-lora.safetensors": (0, 4, 3),
    "Hyper-SD3-8steps-CFG-lora.safetensors": (0, 8, 5),
    "Hyper-SD3-16steps-CFG-lora.safetensors": (0, 16, 7),
    "Hyper-FLUX.1-dev-16steps-lora.safetensors": (0, 16, 1),
    "pcm_sd15_smallcfg_2step_converted.safetensors": (0, 2, 1),
    "pcm_sdxl_smallcfg_16step_converted.safetensors": (0, 16, 1),
    "pcm_sd15_normalcfg_4step_converted.safetensors": (0, 4, 3),
    "pcm_sdxl_normalcfg_8step_converted.safetensors": (0, 8, 4.5),
    "pcm_sdxl_normalcfg_16step_converted.safetensors": (0, 16, 7.5),
    "pcm_sd15_lcmlike_lora_converted.safetensors": (1, 4, 1),
    "pcm_deterministic_2step_shift1.safetensors": (0, 2, 1),
    "PCM.safetensors": (0, 4, 1),
    "lcm/Hyper-SDXL-8steps-lora.safetensors": (0, 8, 1),  # the file's own name comes first
}


@pytest.mark.parametrize("name", NAMES)
def test_published_loras_are_known_by_their_names(settings, name):
    found = settings.recommended({}, name)
    assert (found.gamma, found.steps, found.cfg) == NAMES[name]
    assert found.order == "1"
    assert found.method != "unknown"


@pytest.mark.parametrize("name", ["papercut.safetensors", "hyperrealism.safetensors", "hyper-detail-4step.safetensors"])
def test_others_get_a_guess(settings, name):
    assert settings.recommended({}, name) == settings.Settings("unknown", 0.3, 4, 1.0, "1")


@pytest.mark.parametrize(("method", "gamma"), [("tcd", 0.3), ("lcm", 1.0), ("cm", 1.0), ("direct_cm", 1.0)])
@pytest.mark.parametrize("order", ["1", "2", "s+"])
def test_our_metadata_comes_first(settings, method, gamma, order):
    found = settings.recommended({"tcd.method": method, "tcd.tcf": order}, "pcm_sd15_smallcfg_2step.safetensors")
    assert found == settings.Settings(method, gamma, 4, 1.0, order)


def test_an_order_that_does_not_exist_is_named(settings):
    with pytest.raises(ValueError, match=r"tcd\.tcf must be one of 1, 2, s\+; got '3'"):
        settings.recommended({"tcd.method": "tcd", "tcd.tcf": "3"}, "a.safetensors")


def test_metadata_of_others_tells_no_method(settings):
    theirs = {"ss_base_model_version": "sd_v1", "ss_network_dim": "64", "tcd.method": "later", "ss_output_name": "tcd"}
    assert settings.recommended(theirs, "a.safetensors") == settings.UNKNOWN


def test_what_the_trainer_writes_is_known(settings):
    models = type("Models", (), {"architecture": "SD15", "kind": "eps"})
    for method, gamma in {"tcd": 0.3, "cm": 1, "lcm": 1, "direct_cm": 1}.items():
        written = metadata.of(models, options.Options(method=method), step=1)  # type: ignore[arg-type]
        found = settings.recommended(written, "a.safetensors")
        assert (found.method, found.gamma, found.steps) == (method, gamma, 4)


def test_gamma_and_steps_are_those_that_the_metadata_say(settings):
    found = settings.recommended({"tcd.method": "tcd", "tcd.gamma": "0.2", "tcd.steps": "8"}, "a.safetensors")
    assert (found.gamma, found.steps) == (0.2, 8)


@pytest.mark.parametrize(("name", "text"), [("gamma", "2"), ("gamma", "x"), ("steps", "0"), ("steps", "1.5")])
def test_a_gamma_or_steps_of_no_use_is_named(settings, name, text):
    with pytest.raises(ValueError, match=rf"tcd\.{name} in the metadata must be from .*, got '{text}'"):
        settings.recommended({"tcd.method": "tcd", f"tcd.{name}": text}, "a.safetensors")


def test_settings_do_not_change(settings):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.UNKNOWN.gamma = 1.0
