"""The trainer, on four pictures and the tiny model: what it writes, what it leaves alone, and how it goes on."""

import json
import logging
from types import SimpleNamespace

import host_process
import pytest
import torch
from host_process import ROOT, run
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tcd
from training import host, options, save, train

pytestmark = [pytest.mark.host, pytest.mark.slow]

CHECKPOINT = ROOT / "demo" / "tiny.safetensors"
COLORS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four captioned pictures in a kohya folder."""
    host_process.pack()
    folder = tmp_path_factory.mktemp("data")
    (folder / "2_hearts").mkdir()
    for color in COLORS:
        Image.new("RGB", (128, 128), color).save(folder / "2_hearts" / f"{color}.png")
        (folder / "2_hearts" / f"{color}.txt").write_text(f"{color} heart", encoding="utf-8")
    return folder


def options_of(pictures, output, **named):
    made = {
        "pretrained_model_name_or_path": str(CHECKPOINT),
        "checkpoint_loader": "demo.tiny:load",
        "train_data_dir": str(pictures),
        "resolution": 128,
        "output_dir": str(output),
        "output_name": "new",
        "network_dim": 4,
        "train_batch_size": 2,
        "max_train_steps": 2,
        "learning_rate": 1e-3,
    }
    return options.check(options.Options(**(made | named)))


def content(path):
    """(tensors as bytes, metadata) of a LoRA file, whose metadata has no order."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}, file.metadata()


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """(the LoRA that two steps wrote, the models that it was trained on)."""
    models = []

    def load(*args):
        models.append(host.load(*args))
        return models[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "host", SimpleNamespace(**vars(host) | {"load": load}))
        path = train.train(options_of(pictures, tmp_path_factory.mktemp("output")))
    return path, models[0]


def test_the_lora_has_kohya_keys_and_has_learned(trained):
    state = load_file(trained[0])
    modules = {key.split(".")[0] for key in state}
    assert modules == {tcd.lora.kohya_name(name) for name in tcd.lora.adaptable(trained[1].unet)}
    assert state.keys() == {f"{m}.{part}" for m in modules for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert all(tensor.dtype == torch.float16 and torch.isfinite(tensor).all() for tensor in state.values())
    learned = [bool(tensor.any()) for key, tensor in state.items() if key.endswith("lora_up.weight")]
    assert sum(learned) > 0.9 * len(learned)  # up starts at zero; a few gradients may vanish in half precision


def test_the_metadata_says_what_it_is(trained):
    with safe_open(trained[0], framework="pt") as file:
        metadata = file.metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    wanted = {
        "ss_base_model_version": "TinyConfig",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "4.0",
        "ss_steps": "2",
        "ss_sd_model_name": "tiny.safetensors",
        "tcd.method": "tcd",
        "tcd.tcf": "1",
        "tcd.solver": "ddim",
        "tcd.skip_steps": "20",
        "tcd.ends": "1",
        "tcd.guidance": "[2.0, 14.0]",
    }
    assert {key: metadata[key] for key in wanted} == wanted
    assert len(metadata["sshs_model_hash"]) == 64


def test_every_key_matches_in_comfyui(trained, monkeypatch, caplog):
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(trained[0].parent)], {".safetensors"}))
    (model, clip, _), total = run("TCD_TinyLoader"), len(trained[1].unet.state_dict())
    with caplog.at_level(logging.WARNING):
        stock, _ = run(
            "LoraLoader", model=model, clip=clip, lora_name=trained[0].name, strength_model=1.0, strength_clip=1.0
        )
    assert caplog.messages == []
    modules = len(load_file(trained[0])) // 3
    assert len(stock.patches) == modules < total
    *_, report = run("TCD_LoraLoader", model=model, lora=trained[0].name, strength=1.0)
    assert report.startswith(f"new.safetensors: {modules} of {modules} modules matched; base TinyConfig, rank 4")


def test_the_teacher_is_left_as_it_was(trained):
    fresh = host.load(CHECKPOINT, "demo.tiny:load").unet.state_dict()
    used = trained[1].unet.state_dict()
    assert used.keys() == fresh.keys()
    assert all(torch.equal(used[key], weight) for key, weight in fresh.items())


def test_the_log_has_a_row_for_the_last_step(trained):
    rows = [json.loads(line) for line in (trained[0].parent / "new.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["step"] == 2
    assert rows[-1]["loss"] > 0


def test_the_same_seed_gives_the_same_lora(pictures, tmp_path, trained):
    again = train.train(options_of(pictures, tmp_path))
    assert content(again) == content(trained[0])


def test_a_resumed_run_ends_in_the_same_bits(pictures, tmp_path, monkeypatch):
    named = {"max_train_steps": 4, "save_every_n_steps": 2, "save_state": True, "lr_scheduler": "cosine"}
    whole = train.train(options_of(pictures, tmp_path / "whole", **named))
    written = save.Saver.save

    def interrupted(self, step, name):
        written(self, step, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(save.Saver, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train(options_of(pictures, tmp_path / "parts", **named))
    assert not (tmp_path / "parts" / "new.safetensors").exists()
    resumed = train.train(options_of(pictures, tmp_path / "parts", **named, resume="auto"))
    assert content(resumed) == content(whole)
    assert (tmp_path / "parts" / "new-step00000002.safetensors").is_file()


def test_a_state_of_another_kind_is_refused(pictures, tmp_path):
    train.train(options_of(pictures, tmp_path, max_train_steps=1, save_state=True))
    state = tmp_path / "new-state.pt"
    with pytest.raises(ValueError, match=r"new-state\.pt .*network_dim"):
        train.train(options_of(pictures, tmp_path, network_dim=2, resume=str(state)))
    state.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"new-state\.pt"):
        train.train(options_of(pictures, tmp_path, resume="auto"))


def test_zeros_may_stand_for_no_prompt(pictures, tmp_path, trained):
    path = train.train(options_of(pictures, tmp_path, uncond="zeros", max_train_steps=2))
    assert content(path)[1]["tcd.uncond"] == "zeros"
    assert content(path)[0] != content(trained[0])[0]


@pytest.mark.parametrize("other", [{"ends": 3}, {"ends": 0}, {"solver": "heun"}, {"tcf": "2"}], ids=str)
def test_another_loss_makes_another_lora(pictures, tmp_path, trained, other):
    made, _ = content(train.train(options_of(pictures, tmp_path, **other)))
    before, _ = content(trained[0])
    assert made.keys() == before.keys()
    assert made != before


@pytest.mark.parametrize("loader", ["demo.tiny:load", ""])
def test_a_lora_is_no_checkpoint(loader):
    path = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
    with pytest.raises(ValueError, match=r"tcd_tiny_lora\.safetensors is not a (tiny TCD model|checkpoint)"):
        host.load(path, loader)


@pytest.mark.parametrize("loader", ["demo.tiny:load", ""])
def test_a_broken_checkpoint_is_named(tmp_path, loader):
    (tmp_path / "broken.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"broken\.safetensors is not a"):
        host.load(tmp_path / "broken.safetensors", loader)


def test_tensors_of_something_else_are_no_checkpoint(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors is not a checkpoint that ComfyUI can load"):
        host.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("loader", ["demo.tiny", "demo.tiny:nothing", "no_such_package:load"])
def test_a_loader_that_does_not_exist_is_named(loader):
    with pytest.raises(ValueError, match=f"checkpoint_loader.*'{loader}'"):
        host.load(CHECKPOINT, loader)


@pytest.mark.parametrize(
    ("schedule", "prediction", "kind"),
    [
        ("ModelSamplingDiscrete", "EPS", "eps"),
        ("ModelSamplingDiscrete", "V_PREDICTION", "v"),
        ("ModelSamplingDiscrete", "X0", "x0"),
        ("ModelSamplingDiscreteFlow", "CONST", None),
        ("ModelSamplingContinuousEDM", "EDM", None),
        ("ModelSamplingContinuousEDM", "V_PREDICTION", None),
    ],
)
def test_the_kind_of_prediction_is_told_or_refused(schedule, prediction, kind):
    host.start()
    import comfy.model_sampling as known

    bases = (getattr(known, schedule), getattr(known, prediction))
    model = SimpleNamespace(model=SimpleNamespace(model_sampling=type("ModelSampling", bases, {})()))
    models = host.Models(model, None, None)
    if kind:
        assert models.kind == kind
        return
    with pytest.raises(ValueError, match=f"only eps, v and x0 .* not {prediction} with {schedule}"):
        models.kind  # noqa: B018
