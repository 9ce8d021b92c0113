"""Runs that end early, at any moment, and go on: they must come to the same bits as one that was left alone."""

import os
import random
import shutil
import signal
import time
from functools import partial

import host_process
import pytest
import torch
from short_runs import content, flags_of, options_of, pictures, rows

from training import stopping, train
from training.data import cache

pytestmark = [pytest.mark.host, pytest.mark.slow]

KILLS = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    host_process.pack()
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def forked():
    """Processes of the trainer; a signal ends one of them really."""
    host_process.pack()
    import forked_trainer

    return forked_trainer


# Whatever draws at random or has a memory, and a save after every step.
EVERYTHING = {
    "max_train_steps": 4,
    "train_batch_size": 2,
    "ema_decay": 0.9,
    "network_dropout": 0.1,
    "lr_scheduler": "cosine",
    "flip_aug": True,
    "caption_dropout_rate": 0.3,
    "cache_latents_to_disk": True,
    "cache_text_encoder_outputs_to_disk": True,
    "save_every_n_steps": 1,
    "save_state": True,
}


def test_a_run_killed_at_any_moment_and_resumed_ends_in_the_same_bits(data, tmp_path, forked):
    flags, moments, kills = flags_of(data, tmp_path / "whole", **EVERYTHING), random.Random(0), 0
    assert forked.finish(flags, tmp_path / "log") == 0  # which also pays for the first one
    shutil.rmtree(tmp_path / "whole")
    begun = time.monotonic()
    assert forked.finish(flags, tmp_path / "log") == 0
    seconds, wanted = time.monotonic() - begun, content(tmp_path / "whole" / "new.safetensors")
    for number in range(KILLS):
        output, killed = tmp_path / str(number), True
        flags = flags_of(data, output, **EVERYTHING, resume="auto")
        while killed:
            process = forked.start(flags, tmp_path / "log")
            process.join(moments.uniform(0, seconds) if kills < KILLS else None)
            killed = process.exitcode is None
            kills += killed
            process.kill()
            process.join()
        assert process.exitcode == 0, (tmp_path / "log").read_text()
        assert content(output / "new.safetensors") == wanted
        assert [row["step"] for row in rows(output)] == [1, 2, 3, 4]
        assert not list(output.glob("*.tmp"))
        if kills == KILLS:
            break
    assert kills == KILLS


@pytest.mark.parametrize(
    "other",
    [
        {"tcf": "s+", "network_args": ("target=attention", "module_dropout=0.3")},
        {"optimizer_type": "SGD", "optimizer_args": ("momentum=0.9",), "network_dropout": 0.2},
        {"cache_latents": False, "random_crop": True, "gradient_accumulation_steps": 2},
        {"mixed_precision": "bf16", "optimizer_type": "Adam", "lr_warmup_steps": 2.0},
    ],
    ids=["s+", "sgd", "crops", "bf16"],
)
def test_a_run_in_two_parts_ends_in_the_same_bits(data, tmp_path, other):
    whole = train.train(options_of(data, tmp_path / "whole", **other))
    train.train(options_of(data, tmp_path / "parts", **other, max_train_steps=2, save_state=True))
    parts = train.train(options_of(data, tmp_path / "parts", **other, resume="auto"))
    assert content(parts) == content(whole)
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 2, 3]


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """The state of a run after two steps."""
    folder = tmp_path_factory.mktemp("begun")
    train.train(options_of(data, folder, max_train_steps=2, save_state_on_train_end=True))
    return str(folder / "new-state.pt")


def test_a_state_holds_plain_tensors_and_numbers(begun):
    state = torch.load(begun, weights_only=True)
    assert state.keys() == {"trained", "average", "optimizer", "scaler", "step", "about", "options"}
    assert (state["step"], state["options"]["network_dim"]) == (2, 2)


def test_the_scale_of_half_precision_gradients_goes_on(data, tmp_path):
    options = {"mixed_precision": "fp16", "max_train_steps": 1, "save_state": True}
    train.train(options_of(data, tmp_path, **options))
    state = torch.load(tmp_path / "new-state.pt", weights_only=True)
    state["scaler"]["scale"] = 123.0
    torch.save(state, tmp_path / "new-state.pt")
    run = train.prepare(options_of(data, tmp_path, **options, resume="auto"))
    assert run.scaler.get_scale() == 123.0


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"network_dim": 4}, r"the weights to train differ; .*network_dim \(2 -> 4\)"),
        ({"tcf": "s+"}, "the weights to train differ"),
        ({"optimizer_type": "Adam"}, r"the optimizer differ; .*optimizer_type \('AdamW' -> 'Adam'\)"),
        ({"optimizer_args": ("weight_decay=0.1",)}, "the optimizer differ"),
        ({"ema_decay": 0.5}, r"the running average differ; .*ema_decay \(0.0 -> 0.5\)"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_refused(data, tmp_path, begun, other, differs):
    with pytest.raises(ValueError, match=rf"new-state\.pt is a state of another run, {differs}"):
        train.train(options_of(data, tmp_path, resume=begun, **other))


def test_a_state_of_a_teacher_of_the_same_shape_is_refused(data, tmp_path, begun, monkeypatch):
    import small_models

    monkeypatch.setattr(small_models, "randomize", partial(small_models.randomize, seed=1))
    with pytest.raises(ValueError, match="the teacher's weights differ; options then and now: max_train_steps"):
        train.train(options_of(data, tmp_path, resume=begun))


def test_a_state_of_more_steps_than_are_asked_for_is_refused(data, tmp_path, begun):
    with pytest.raises(ValueError, match="the state is one after 2 steps, but only 1 are asked for"):
        train.train(options_of(data, tmp_path, resume=begun, max_train_steps=1))


def test_something_else_is_no_state(data, tmp_path):
    (tmp_path / "new-state.pt").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"new-state\.pt is no state that can be resumed"):
        train.train(options_of(data, tmp_path, resume="auto"))


def test_options_that_matter_may_change_and_are_told(data, tmp_path, begun, caplog):
    train.train(options_of(data, tmp_path, resume=begun, learning_rate=1e-4, solver="heun", training_comment="again"))
    (told,) = caplog.messages
    assert told.startswith("this run began with other options: ")
    assert "learning_rate (0.001 -> 0.0001)" in told
    assert "solver ('ddim' -> 'heun')" in told
    assert "training_comment" not in told
    assert [row["lr"] for row in rows(tmp_path)] == [1e-4]  # at once


def wait_for_a_step(output, process):
    while not (output / "new.jsonl").is_file() or not rows(output):
        assert process.exitcode is None
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_loses_none(data, tmp_path, forked, number):
    process = forked.start(flags_of(data, tmp_path, max_train_steps=1000, save_state=True), tmp_path / "log")
    wait_for_a_step(tmp_path, process)
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == 128 + number
    step = torch.load(tmp_path / "new-state.pt", weights_only=True)["step"]
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, step + 1))
    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert f"stopped after step {step} of 1000: run again with --resume auto" in told


def test_without_save_state_a_stopped_run_says_that_nothing_is_kept(data, tmp_path, forked):
    process = forked.start(flags_of(data, tmp_path, max_train_steps=1000), tmp_path / "log")
    wait_for_a_step(tmp_path, process)
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 130
    assert "nothing is saved since, as save_state is not set" in (tmp_path / "log").read_text(encoding="utf-8")
    assert not (tmp_path / "new-state.pt").exists()


def test_the_same_signal_from_two_sides_is_one_and_a_second_one_ends_at_once(monkeypatch):
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with stopping.Stop() as told:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert told.asked == signal.SIGINT
            monkeypatch.setattr(stopping, "SAME", -1)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, found)


def test_what_a_killed_process_left_of_its_cache_is_removed_after_a_day(tmp_path):
    for name, age in (("old.x.tmp", 2 * cache.DAY), ("new.x.tmp", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time(), time.time() - age))
    cache.Folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.x.tmp"]
