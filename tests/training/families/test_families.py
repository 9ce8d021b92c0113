"""Every family, from pictures to a LoRA in ComfyUI's own loader: small models of the same classes."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host_process
import pytest
import small_models
import torch
from host_process import far, run, sample, sigmas, tcd_sampler
from PIL import Image
from safetensors.torch import load_file

from tcd import lora
from training import host, options, train
from training.host import Network, Size

pytestmark = [pytest.mark.host, pytest.mark.slow]

CAPTIONS = {"red": "red heart", "green": "a green heart", "blue": "one heart that is blue", "white": "white"}
SIZE, GUIDANCE = Size(64, 64, 0, 0, 64, 64), 3.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four captioned pictures in a kohya folder, and a file that stands for the checkpoint."""
    host_process.pack()
    folder = tmp_path_factory.mktemp("data")
    (folder / "1_hearts").mkdir()
    for color, caption in CAPTIONS.items():
        Image.new("RGB", (64, 64), color).save(folder / "1_hearts" / f"{color}.png")
        (folder / "1_hearts" / f"{color}.txt").write_text(caption, encoding="utf-8")
    (folder / "small.safetensors").write_bytes(b"not looked at")
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS.values()), encoding="utf-8")
    return folder


def options_of(folder, output, family: str, **named) -> options.Options:
    made: dict[str, Any] = {
        "pretrained_model_name_or_path": str(folder / "small.safetensors"),
        "checkpoint_loader": f"small_models:{family}",
        "train_data_dir": str(folder),
        "resolution": "64",
        "output_dir": str(output),
        "output_name": family,
        "network_dim": 2,
        "train_batch_size": 2,
        "max_train_steps": 2,
        "learning_rate": 1e-2,
        "save_precision": "float",
    }
    return options.check(options.Options(**(made | named)))


@dataclass
class Trained:
    """A run of two steps, the LoRA that it wrote, and what its network said without LoRA before and after each step."""

    family: str
    run: train.Run
    path: Path
    off: list[torch.Tensor]

    def fresh(self) -> host.Models:
        """The same small model, untouched."""
        return untouched(self.family)


def untouched(family: str) -> host.Models:
    return host.load(Path("small.safetensors"), f"small_models:{family}")


@torch.no_grad()
def output(models: host.Models, family: str) -> torch.Tensor:
    """What the network says to one noise and text."""
    x, t, cond = drawn(family)
    return Network(models, GUIDANCE)(x, t, [cond], [SIZE])


def drawn(family: str) -> tuple[torch.Tensor, torch.Tensor, host.Cond]:
    """(x, t, cond) of one sample."""
    models = untouched(family)
    channels = models.model.model.latent_format.latent_channels
    x = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, models.sched.time_at(torch.tensor([600.0])), host.encode_text(models, "a heart")


@pytest.fixture(scope="module", params=list(small_models.FAMILIES))
def trained(request, folder, tmp_path_factory):
    family, runs, off, prepare, step = request.param, [], [], train.prepare, train.train_step

    def prepared(*args) -> train.Run:
        runs.append(prepare(*args))
        with runs[0].parts.switched(False):
            off.append(output(runs[0].models, family))
        return runs[0]

    def stepped(run: train.Run, number: int) -> train.Result:
        result = step(run, number)
        with run.parts.switched(False):
            off.append(output(run.models, family))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "prepare", prepared)
        patch.setattr(train, "train_step", stepped)
        path = train.train(options_of(folder, tmp_path_factory.mktemp(family), family))
    return Trained(family, runs[0], path, off)


@pytest.fixture
def stock(trained, monkeypatch, caplog):
    """(an untouched model with the LoRA by ComfyUI's own loader, what the loader warned of)."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(trained.path.parent)], {".safetensors"}))
    with caplog.at_level(logging.WARNING):
        model, _ = run(
            "LoraLoader",
            model=trained.fresh().model,
            clip=None,
            lora_name=trained.path.name,
            strength_model=1.0,
            strength_clip=1.0,
        )
    return model, list(caplog.messages)


def test_every_key_of_the_lora_matches(trained, stock):
    model, warnings = stock
    assert warnings == []
    adapter = trained.run.parts.adapter
    assert len(load_file(trained.path)) == 3 * len(adapter.paths)
    assert len(model.patches) == len(adapter.paths)
    assert set(adapter.names.values()) == set(lora.adaptable(trained.run.models.unet))


def test_the_stock_loader_gives_the_network_that_was_trained(trained, stock):
    import comfy.model_management

    x, t, cond = drawn(trained.family)
    with torch.no_grad():
        student = trained.run.parts.student([cond], [SIZE])(x, t)
    comfy.model_management.load_models_gpu([stock[0]], force_patch_weights=True)
    patched = host.Models(stock[0], None, None)
    assert far(small_models.clean(patched, x, t, cond, SIZE, GUIDANCE), student) < 1e-5
    assert far(small_models.clean(trained.fresh(), x, t, cond, SIZE, GUIDANCE), student) > 1e-3  # it has learned


def test_the_lora_samples_in_comfyui(trained, stock):
    _, _, cond = drawn(trained.family)
    pooled = {} if cond.pooled is None else {"pooled_output": cond.pooled}
    conditioning = [[cond.cross, {**pooled, **cond.extra}]]
    plain = trained.fresh().model
    latent = {"samples": torch.zeros(1, plain.model.latent_format.latent_channels, 8, 8)}
    with_lora, without = (
        sample(model, conditioning, tcd_sampler(), sigmas(model), latent) for model in (stock[0], plain)
    )
    assert with_lora.isfinite().all()
    assert far(with_lora, without) > 1e-3


def test_every_layer_of_the_lora_has_a_gradient_and_nothing_else_has(trained):
    train.gradient(trained.run, 2)
    parameters = dict(trained.run.parts.adapter.named_parameters())
    try:
        assert [name for name, one in parameters.items() if one.grad is None or not one.grad.any()] == []
        assert all(one.grad.isfinite().all() for one in parameters.values())
        assert [name for name, one in trained.run.models.model.model.named_parameters() if one.grad is not None] == []
    finally:
        trained.run.optimizer.zero_grad(set_to_none=True)


def test_without_the_lora_it_is_the_teacher_to_the_bit(trained):
    wanted = output(host.place(trained.fresh()), trained.family)
    assert len(trained.off) == 3
    assert all(torch.equal(found, wanted) for found in trained.off)
    with trained.run.parts.switched(False):
        assert torch.equal(output(trained.run.models, trained.family), wanted)
    state, own = trained.fresh().unet.state_dict(), trained.run.models.unet.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(own[name], weight) for name, weight in state.items())


def test_recomputing_blocks_gives_the_same_lora(trained, folder, tmp_path):
    again = train.train(options_of(folder, tmp_path, trained.family, gradient_checkpointing=True))
    wanted = load_file(trained.path)
    assert all(torch.allclose(found, wanted[name], atol=1e-5) for name, found in load_file(again).items())


def test_half_precision_and_prompts_train_too(trained, folder, tmp_path):
    named = {"mixed_precision": "bf16", "train_data_dir": "", "prompts": str(folder / "prompts.txt")}
    path = train.train(options_of(folder, tmp_path, trained.family, teacher_steps=2, **named))
    state = load_file(path)
    assert state.keys() == load_file(trained.path).keys()
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert all(tensor.any() for name, tensor in state.items() if name.endswith("lora_up.weight"))
