"""The trainer: what it writes and when, what it leaves alone, and what it says."""

import json
import logging
import re
import subprocess
import sys

import pytest
import torch
from host_process import ROOT, pack, run
from safetensors import safe_open
from safetensors.torch import load_file
from short_runs import content, flags_of, pictures
from short_runs import options_of as short_options

import tcd
from training import checkpointing, host, options, train

pytestmark = [pytest.mark.host, pytest.mark.slow]


TINY = {"checkpoint_loader": "demo.tiny:load", "resolution": "128", "save_precision": "fp16"}


def options_of(data, output, **named):
    """Of two steps on two pictures, with a LoRA of every layer."""
    return short_options(data, output, **({"network_args": (), "train_batch_size": 2, "max_train_steps": 2} | named))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pack()
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("red heart --d 1 --s 2\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """(the LoRA that two steps on the tiny model wrote, the run)."""
    found = train.prepare(options_of(data, tmp_path_factory.mktemp("output"), **TINY))
    train.loop(found)
    return train.save_at_the_end(found), found


def names(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


# --- What is written -------------------------------------------------------------------------------------


def test_the_lora_has_kohya_keys_and_has_learned(trained):
    path, found = trained
    state = load_file(path)
    modules = {key.split(".")[0] for key in state}
    assert modules == {tcd.lora.kohya_name(name) for name in tcd.lora.adaptable(found.models.unet)}
    assert state.keys() == {f"{m}.{part}" for m in modules for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert all(tensor.dtype == torch.float16 and torch.isfinite(tensor).all() for tensor in state.values())
    learned = [bool(tensor.any()) for key, tensor in state.items() if key.endswith("lora_up.weight")]
    assert sum(learned) > 0.9 * len(learned)  # up starts at zero; a few gradients may vanish in half precision


def test_every_key_matches_in_comfyui(trained, monkeypatch, caplog):
    import folder_paths

    path, _ = trained
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(path.parent)], {".safetensors"}))
    model, clip, _ = run("TCD_TinyLoader")
    with caplog.at_level(logging.WARNING):
        stock, _ = run("LoraLoader", model=model, clip=clip, lora_name=path.name, strength_model=1.0, strength_clip=1.0)
    assert caplog.messages == []
    modules = len(load_file(path)) // 3
    assert len(stock.patches) == modules
    *_, report = run("TCD_LoraLoader", model=model, lora=path.name, strength=1.0)
    assert report.startswith(f"new.safetensors: {modules} of {modules} modules matched; base TinyConfig, rank 2")
    assert "recommended: gamma 0.3, 4 steps, cfg 1" in report


def test_the_teacher_is_left_as_it_was(trained):
    fresh = host.load(ROOT / "demo" / "tiny.safetensors", "demo.tiny:load").unet.state_dict()
    used = trained[1].models.unet.state_dict()
    assert used.keys() == fresh.keys()
    assert all(torch.equal(used[key], weight) for key, weight in fresh.items())


def test_only_the_lora_has_a_gradient(trained):
    found = trained[1]
    train.gradient(found, 0)
    assert all(parameter.grad is None for parameter in found.models.unet.parameters())
    assert all(weight.grad is not None for weight in found.parts.weights)
    found.optimizer.zero_grad()


def test_the_log_has_a_row_for_the_last_step(trained):
    rows = [json.loads(line) for line in (trained[0].parent / "new.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["step"] == 2
    assert rows[-1]["loss"] > 0


def test_the_resolved_configuration_lies_beside_it(data, tmp_path):
    opts = options_of(data, tmp_path)
    train.train(opts)
    assert options.Options(**options.from_toml(tmp_path / "new.toml")) == opts


def test_an_epoch_s_worth_of_steps_may_be_asked_for(data, tmp_path):
    path = train.train(options_of(data, tmp_path, max_train_epochs=2, train_batch_size=4))
    assert content(path)[1]["ss_steps"] == "4"  # 4 pictures twice, in batches of 4, make two steps an epoch


# --- What is written on the way -------------------------------------------------------------------------------------


def test_files_of_steps_are_kept_as_long_as_asked_for(data, tmp_path):
    train.train(options_of(data, tmp_path, max_train_steps=6, save_every_n_steps=2, save_last_n_steps=3))
    assert names(tmp_path) == ["new-step00000004.safetensors", "new-step00000006.safetensors", "new.safetensors"]


def test_files_of_epochs_are_kept_as_long_as_asked_for(data, tmp_path):
    named = {"max_train_epochs": 3, "train_batch_size": 8, "save_every_n_epochs": 1, "save_last_n_epochs": 2}
    train.train(options_of(data, tmp_path, **named))
    assert names(tmp_path) == ["new-000002.safetensors", "new-000003.safetensors", "new.safetensors"]


@pytest.mark.parametrize("name", ["save_state", "save_state_on_train_end"])
def test_a_finished_run_can_be_gone_on_from(data, tmp_path, name):
    train.train(options_of(data, tmp_path, **{name: True}))
    longer = train.train(options_of(data, tmp_path, max_train_steps=3, resume="auto"))
    assert content(longer)[1]["ss_steps"] == "3"
    straight = train.train(options_of(data, tmp_path / "straight", max_train_steps=3))
    assert content(longer)[0] == content(straight)[0]


def test_sample_sheets_come_when_they_are_due(data, tmp_path, prompts):
    seen = {"sample_prompts": prompts, "sample_at_first": True, "sample_every_n_steps": 2, "ode_error_steps": 2}
    named = {"max_train_steps": 4, "sample_every_n_epochs": 3, "train_batch_size": 8, "ode_error_every_n_steps": 3}
    train.train(options_of(data, tmp_path, **seen, **named))
    assert [path.name for path in sorted((tmp_path / "sample").iterdir())] == [
        f"new-step{step:08d}.png" for step in (0, 2, 3, 4)
    ]
    rows = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if "ode_error" in row] == [3]


def test_looking_on_changes_nothing(data, tmp_path, prompts):
    plain = train.train(options_of(data, tmp_path / "plain", network_dropout=0.5))
    seen = {"sample_prompts": prompts, "sample_every_n_steps": 1, "ode_error_every_n_steps": 1, "ode_error_steps": 2}
    watched = train.train(options_of(data, tmp_path / "watched", network_dropout=0.5, **seen))
    assert content(plain)[0] == content(watched)[0]


@pytest.mark.parametrize("option", ["gradient_checkpointing", "torch_compile"])
def test_the_network_is_changed_when_asked_for(data, tmp_path, monkeypatch, option):
    changed = []
    monkeypatch.setattr(checkpointing, "checkpoint_blocks", lambda net: changed.append("gradient_checkpointing"))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: changed.append("torch_compile"))
    train.prepare(options_of(data, tmp_path))
    assert changed == []
    train.prepare(options_of(data, tmp_path, **{option: True}))
    assert changed == [option]


def test_a_full_student_keeps_what_a_bf16_teacher_rounds_away(data, tmp_path):
    named = {"network_dim": 64, "checkpoint_loader": "demo.tiny:load", "resolution": "128", "mixed_precision": "bf16"}
    found = train.prepare(options_of(data, tmp_path, full_finetune=True, **named))
    whole = host.load(ROOT / "demo" / "tiny.safetensors", "demo.tiny:load").unet.state_dict()
    student = found.parts.student_net.unet.state_dict()
    assert all(torch.equal(student[name], weight) for name, weight in whole.items())
    assert {weight.dtype for weight in found.parts.net.unet.state_dict().values()} == {torch.bfloat16}


# --- What is said -------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_trains_nothing(data, tmp_path, capsys):
    path = train.train(options_of(data, tmp_path, dry_run=True, ema_decay=0.9))
    said = capsys.readouterr().out
    assert path == tmp_path / "new.toml"
    assert names(tmp_path) == []
    for line in (
        "teacher: SD15, eps-prediction, no on cpu",
        r"student: LoRA of \d+ layers, [\d,]+ weights; tcd, TCF\(1\)",
        "data: 4 samples, 8 in an epoch",
        r"steps: 2 of 2 samples on 1 processes; 0\.5 epochs",
        r"time: [\d.]+ s a step, about 0\.0 hours",
        r"memory: about [\d.]+ GiB",
    ):
        assert re.search(f"^{line}", said, re.MULTILINE), line


def test_a_gradient_that_is_not_finite_ends_the_run(data, tmp_path):
    found = train.prepare(options_of(data, tmp_path))
    with torch.no_grad():
        found.parts.weights[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the gradient is not finite at step 0: lower learning_rate"):
        train.train_step(found, 0)


def test_the_command_line_trains_a_lora(data, tmp_path):
    command = [sys.executable, "-m", "training.train", *flags_of(data, tmp_path, **TINY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'new.safetensors'}"
    assert "loss=" in done.stderr
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        assert file.metadata()["tcd.method"] == "tcd"
