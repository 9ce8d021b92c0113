"""Sampling that ends at any of its network's evaluations, by Cancel or out of memory: the host is clean, and the same
nodes then give the same bits as if nothing had happened.
"""

from collections.abc import Callable
from typing import Any

import host_process
import pytest
import torch
from host_process import empty, run, sample, sigmas, stock_sampler, tcd_sampler
from torch import Tensor

pytestmark = pytest.mark.host

SIZE = {"width": 64, "height": 64}


class Probe:
    """Counts the evaluations of a MODEL, and does something in the one of a chosen number."""

    def __init__(self) -> None:
        self.count, self.at = 0, 0
        self.event: Callable[[], None] = lambda: None

    def __call__(self, executor: Any, *args: Any, **named: Any) -> Tensor:
        self.count += 1
        if self.count == self.at:
            self.event()
        return executor(*args, **named)

    def arm(self, at: int, event: Callable[[], None]) -> None:
        self.count, self.at, self.event = 0, at, event


@pytest.fixture(scope="module")
def tiny():
    host_process.pack()
    return run("TCD_TinyLoader")


@pytest.fixture(scope="module")
def cond(tiny):
    return run("CLIPTextEncode", clip=tiny[1], text="red heart")[0]


@pytest.fixture
def probe():
    return Probe()


@pytest.fixture
def model(tiny, probe):
    """With the LoRA that knows every order."""
    made = run("TCD_LoraLoader", model=tiny[0], lora="tcd_splus_tiny_lora.safetensors", strength=0.7)[0]
    made.add_wrapper_with_key("apply_model", "probe", probe)
    return made


@pytest.fixture
def way(request, model, tiny, cond, tmp_path, monkeypatch):
    """Samples once, with nodes that are made once, as ComfyUI keeps them from prompt to prompt."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return WAYS[request.param](model, tiny, cond)


def by_order(order: str) -> Callable[..., Callable[[], Tensor]]:
    def way(model: Any, tiny: tuple, cond: Any) -> Callable[[], Tensor]:
        sampler, levels = tcd_sampler(0.4, order), sigmas(model, 3)
        return lambda: sample(model, cond, sampler, levels)

    return way


def guided(model: Any, tiny: tuple, cond: Any) -> Callable[[], Tensor]:
    """TCD_KSampler, which records."""
    inputs = {"model": model, "seed": 1, "steps": 3, "cfg": 3.0, "gamma": 0.3, "order": "2", "denoise": 1.0}
    inputs |= {"positive": cond, "negative": run("CLIPTextEncode", clip=tiny[1], text="")[0], "latent": empty()}
    return lambda: run("TCD_KSampler", **inputs, grid="distillation", last_step="t0")[0]["samples"]


def recorded(name: str) -> Callable[..., Callable[[], Tensor]]:
    """The result and every state that was recorded, also of the path without noise."""

    def way(model: Any, tiny: tuple, cond: Any) -> Callable[[], Tensor]:
        made, recorder = run("TCD_RecordTrajectory", model=model, reference=True)
        sampler, levels = tcd_sampler() if name == "tcd" else stock_sampler(name), sigmas(model, 3)

        def draw() -> Tensor:
            out = sample(made, cond, sampler, levels)
            path = recorder.trajectory()
            assert len(path) == 3
            return torch.cat([out, path.x0.flatten(0, 1), path.states.flatten(0, 1), path.reference.flatten(0, 1)])

        return draw

    return way


def inpainted(model: Any, tiny: tuple, cond: Any) -> Callable[[], Tensor]:
    """In two halves: the second one keeps what the first one kept."""
    picture = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1
    (latent,) = run("SetLatentNoiseMask", samples={"samples": picture}, mask=mask)
    sampler, levels = tcd_sampler(), sigmas(model, 4)

    def draw() -> Tensor:
        half = sample(model, cond, sampler, levels[:3], latent)
        return sample(model, cond, sampler, levels[2:], {**latent, "samples": half}, seed=None)

    return draw


def compared(model: Any, tiny: tuple, cond: Any) -> Callable[[], Tensor]:
    """The pictures of TCD_Compare."""
    inputs = {
        "model": model,
        "vae": tiny[2],
        "positive": cond,
        "latent": run("EmptyLatentImage", batch_size=1, **SIZE)[0],
    }
    inputs |= {"seed": 1, "methods": "tcd, dpmpp_2s", "steps": "1, 2", "gammas": "0.3", "order": "1", "cfg": 4.0}
    return lambda: run("TCD_Compare", **inputs, equal_evaluations=False)[1]


WAYS: dict[str, Callable[..., Callable[[], Tensor]]] = {
    **{f"order {order}": by_order(order) for order in ("1", "2", "s+")},
    "ksampler": guided,
    **{f"recorded {name}": recorded(name) for name in ("tcd", "euler_ancestral")},
    "inpainting in two halves": inpainted,
    "compare": compared,
}


def cancel() -> None:
    import comfy.model_management as management

    management.interrupt_current_processing()


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("the test's memory is full")


def options_of(tree: Any) -> Any:
    """A MODEL's options as they are now: its dicts and lists copied, what is in them not."""
    if isinstance(tree, dict):
        return {key: options_of(value) for key, value in tree.items()}
    return [options_of(value) for value in tree] if isinstance(tree, list) else tree


def weights_of(model: Any) -> dict[str, Tensor]:
    """The bare network's, without any LoRA."""
    model.unpatch_model()
    return {name: tensor.clone() for name, tensor in model.model.diffusion_model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("event", [cancel, out_of_memory])
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_after_an_end_at_any_evaluation_the_next_sampling_has_the_same_bits(way, event, probe, model):
    import comfy.model_management as management

    expected = management.InterruptProcessingException if event is cancel else management.OOM_EXCEPTION
    wanted, evaluations = way(), probe.count
    options = options_of(model.model_options)
    assert evaluations >= 3
    for at in range(1, evaluations + 1):
        probe.arm(at, event)
        with pytest.raises(expected):
            way()
        assert probe.count == at
        assert not management.processing_interrupted()
        assert options_of(model.model_options) == options
        if event is out_of_memory:
            management.unload_all_models()  # as ComfyUI does then
        probe.arm(0, event)
        assert torch.equal(way(), wanted), f"after an end at evaluation {at} of {evaluations}"


def test_a_sampling_that_ends_early_leaves_the_weights_that_were_there(model, tiny, cond, probe):
    before = weights_of(tiny[0])
    sampler, levels = tcd_sampler(), sigmas(model, 3)
    for at in (1, 2, 3):
        probe.arm(at, out_of_memory)
        with pytest.raises(torch.OutOfMemoryError, match="the test's memory is full"):
            sample(model, cond, sampler, levels)
    model.unpatch_model()
    after = weights_of(tiny[0])
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
