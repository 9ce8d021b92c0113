"""The same LoRA files through TCD_LoraLoader, on the tiny model; and what ComfyUI then makes of the weights."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.lora_files import file_of
from fuzz.mutations import seeds
from fuzz.rule import refused_or_right
from host_process import module, run
from torch import Tensor

import tcd

pytestmark = pytest.mark.host

FEW = ("input_blocks.0.0", "time_embed.0", "middle_block.1.proj_in", "middle_block.1.transformer_blocks.0.attn1.to_q")


@pytest.fixture(scope="module")
def model() -> Any:
    return run("TCD_TinyLoader")[0]


def check_patched(weights: dict[str, Tensor], found: tuple, caplog: pytest.LogCaptureFixture) -> None:
    """ComfyUI uses every patch without a complaint, and the weights are finite; what is recommended can be used."""
    import comfy.lora

    patched, _, settings, _ = found
    caplog.clear()
    for key, patches in patched.patches.items():
        weight = weights[key].clone().float()
        made = comfy.lora.calculate_weight(patches, weight, key)
        assert made.shape == weight.shape
        assert bool(made.isfinite().all())
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert 0 <= settings.gamma <= 1
    assert 1 <= settings.steps <= 1000


@pytest.mark.slow
def test_a_file_is_loaded_as_comfyui_can_use_it_or_refused(tmp_path, model, caplog):
    lora = module("lora")
    path, known = tmp_path / "a.safetensors", tcd.lora.adaptable(model.model.diffusion_model)
    layers, weights = {name: known[name].weight.shape for name in FEW}, model.model.state_dict()
    with torch.inference_mode():
        for chance in seeds("lora node", 1000):
            path.write_bytes(file_of(layers, chance))
            refused_or_right(
                "TCD_LoraLoader",
                lambda: lora.apply(str(path), "a.safetensors", 1.0, model),
                lambda found: check_patched(weights, found, caplog),
            )


def name_in(folder: Path, content: bytes) -> str:
    (folder / "a.safetensors").write_bytes(content)
    return "a.safetensors"


def test_the_node_names_the_file(tmp_path, model, monkeypatch):
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    known = tcd.lora.adaptable(model.model.diffusion_model)
    layers = {name: known[name].weight.shape for name in FEW}
    for chance in seeds("lora node names", 60):
        name = name_in(tmp_path, file_of(layers, chance))
        refused_or_right(
            "TCD_LoraLoader",
            lambda name=name: run("TCD_LoraLoader", model=model, lora=name, strength=1.0),
            lambda found: None,
            [name],
        )
