"""The opt-in: `tcd` in ComfyUI's own KSampler. The lists are global, so each test puts them back."""

import json

import pytest
import torch
from host_process import empty, module, run, sample, sigmas, tcd_sampler

pytestmark = pytest.mark.host


@pytest.fixture
def host(tiny):
    """comfy.samplers, whose lists are as they were after the test."""
    import comfy.samplers
    from comfy.k_diffusion import sampling

    kept = [(names, list(names)) for names in (comfy.samplers.SAMPLER_NAMES, comfy.samplers.SCHEDULER_NAMES)]
    yield comfy.samplers
    for names, before in kept:
        names[:] = before
    comfy.samplers.SCHEDULER_HANDLERS.pop("tcd", None)
    for name in module("stock").PRESETS:
        if hasattr(sampling, f"sample_{name}"):
            delattr(sampling, f"sample_{name}")


@pytest.fixture
def users(tmp_path, monkeypatch):
    """ComfyUI's folder of users, with one."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    (tmp_path / "default").mkdir()
    return tmp_path / "default" / "comfy.settings.json"


def ksampler(model, cond, sampler, scheduler, steps=4, denoise=1.0):
    inputs = {"seed": 7, "steps": steps, "cfg": 1.0, "sampler_name": sampler, "scheduler": scheduler}
    inputs |= {"positive": cond, "negative": cond, "latent_image": empty(), "denoise": denoise}
    return run("KSampler", model=model, **inputs)[0]["samples"]


def test_nothing_is_there_unless_asked_for(host):
    assert not {"tcd", "tcd_smooth", "tcd_detail"} & set(host.KSampler.SAMPLERS)
    assert "tcd" not in host.KSampler.SCHEDULERS


def test_asked_for_twice_it_is_there_once(host):
    for _ in range(2):
        module("stock").register()
    assert host.KSampler.SAMPLERS.count("tcd") == host.KSampler.SCHEDULERS.count("tcd") == 1


@pytest.mark.parametrize(("name", "gamma"), [("tcd", 0.3), ("tcd_smooth", 0.0), ("tcd_detail", 0.6)])
def test_the_stock_ksampler_gives_what_our_nodes_give(host, model, cond, name, gamma):
    module("stock").register()
    wanted = sample(model, cond, tcd_sampler(gamma), sigmas(model), seed=7)
    assert torch.equal(ksampler(model, cond, name, "tcd"), wanted)


def test_the_stock_ksampler_also_has_more_steps_and_less_denoise(host, model, cond):
    module("stock").register()
    assert ksampler(model, cond, "tcd", "tcd", steps=60).isfinite().all()
    assert ksampler(model, cond, "tcd", "karras", steps=4, denoise=0.5).isfinite().all()


def test_the_setting_of_the_front_end_asks_for_it(users):
    asked_for = module("stock").asked_for
    assert not asked_for()
    users.write_text(json.dumps({"TCD.StockNames": False}), encoding="utf-8")
    assert not asked_for()
    users.write_text(json.dumps({"TCD.StockNames": True}), encoding="utf-8")
    assert asked_for()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_settings_that_cannot_be_read_are_named_and_pass(users, caplog, content):
    users.write_bytes(content)
    assert not module("stock").asked_for()
    assert "comfy.settings.json cannot be read" in caplog.text
