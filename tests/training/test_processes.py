"""Two processes that train together come to what one comes to with as many samples; also with the student in parts."""

import os
import signal
import subprocess
import sys
import time

import host_process
import psutil
import pytest
import torch
from host_process import ROOT
from safetensors.torch import load_file, save_file
from short_runs import flags_of, options_of, pictures, rows

from training import sharding, train
from training.run import check
from training.save import PREFIX
from training.workers import Workers

pytestmark = [pytest.mark.host, pytest.mark.slow]

# A large eps: AdamW's division by a gradient of nearly nothing would make much of the order of a sum.
ADAMW = {"optimizer_type": "AdamW", "optimizer_args": ("eps=1e-3",)}
SGD = {"optimizer_type": "SGD", "learning_rate": 0.1}
BUCKETS = {"enable_bucket": True, "min_bucket_reso": 32, "max_bucket_reso": 128, "bucket_reso_steps": 32}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of two aspect ratios."""
    host_process.pack()
    return pictures(tmp_path_factory.mktemp("data"), ((64, 64), (96, 32)))


@pytest.fixture(scope="module")
def forked():
    host_process.pack()
    import forked_trainer

    return forked_trainer


def together(forked, data, output, **options):
    """Train in two processes; the path of the result."""
    each = [flags_of(data, output, **options)] * 2
    codes = forked.finish_together(each, output.with_suffix(".log"))
    assert codes == [0, 0], output.with_suffix(".log").read_text()
    return output / "new.safetensors"


def far(one, two):
    """The largest difference of the files' tensors."""
    one, two = load_file(one), load_file(two)
    assert one.keys() == two.keys()
    return max((one[name].float() - two[name].float()).abs().max().item() for name in one)


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["SGD", "AdamW"])
def test_two_processes_are_one_with_the_double_batch(data, tmp_path, forked, optimizer):
    options = {**optimizer, **BUCKETS, "flip_aug": True, "ema_decay": 0.5, "max_train_steps": 4}
    double = train.train(options_of(data, tmp_path / "double", **options, train_batch_size=4))
    summed = train.train(
        options_of(data, tmp_path / "summed", **options, train_batch_size=2, gradient_accumulation_steps=2)
    )
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    each = [flags_of(data, tmp_path / name, **options, train_batch_size=2) for name in ("first", "second")]
    assert forked.finish_together(each, tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    two = tmp_path / "first" / "new.safetensors"
    fresh = train.train(options_of(data, tmp_path / "fresh", **options | {"learning_rate": 1e-12}, train_batch_size=4))
    assert far(double, fresh) > 1e-3  # it has learned
    assert far(summed, double) < 1e-5
    assert far(two, double) < 1e-5
    losses = [[row["loss"] for row in rows(path.parent)] for path in (two, double, summed)]
    assert torch.allclose(*torch.tensor(losses[:2]), rtol=1e-4)
    assert torch.allclose(*torch.tensor(losses[1:]), rtol=1e-4)
    assert {path.name for path in two.parent.iterdir()} == {"new.safetensors", "new.jsonl", "new.toml"}
    assert not list((tmp_path / "second").iterdir())  # only the first one writes


WHOLE = {
    **ADAMW,
    "full_finetune": True,
    "network_dim": 64,
    "network_args": (),
    "tcf": "s+",
    "ema_decay": 0.5,
    "train_batch_size": 2,
    "save_state_on_train_end": True,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A checkpoint whose diffusion model is the small SD 1.5."""
    import small_models

    model, *_ = small_models.sd15()
    path = tmp_path_factory.mktemp("teacher") / "sd15.safetensors"
    save_file({PREFIX + name: tensor for name, tensor in model.model.diffusion_model.state_dict().items()}, path)
    return path


def test_a_student_in_parts_is_the_same_student_and_goes_on_in_the_same_bits(data, tmp_path, forked, teacher):
    options = {**WHOLE, "pretrained_model_name_or_path": str(teacher), "max_train_steps": 2}
    whole = train.train(options_of(data, tmp_path / "whole", **options | {"train_batch_size": 4}))
    shared = {**options, "fsdp": True, "gradient_checkpointing": True}
    parts = together(forked, data, tmp_path / "parts", **shared)
    assert far(whole, teacher) > 1e-3
    assert far(parts, whole) < 1e-5
    assert far(*[path.with_name("new-target_time.safetensors") for path in (parts, whole)]) < 1e-5
    one, two = (torch.load(path.with_name("new-state.pt"), weights_only=True) for path in (parts, whole))
    assert one["about"] == two["about"]
    for name in ("trained", "average", "optimizer"):
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0)

    half = together(forked, data, tmp_path / "half", **shared | {"max_train_steps": 1})
    resumed = together(forked, data, tmp_path / "rest", **shared, resume=str(half.with_name("new-state.pt")))
    assert far(resumed, parts) == 0


def test_all_processes_make_the_same_number_of_groups():
    """Else one would wait for another that does not come, where captions have several lengths."""
    inputs = ["one", "another", "third"]

    class Others(Workers):
        groups = 1

        def mean(self, number):
            return (number + self.groups) / 2

    others = Others(torch.device("cpu"))
    agreed = sharding.agreeing(lambda inputs: [[0, 1, 2]], others)
    assert agreed(inputs) == [[0, 1, 2]]
    Others.groups = 2
    assert agreed(inputs) == [[0], [1], [2]]
    assert sharding.agreeing(lambda inputs: [[0, 2], [1]], others)(inputs) == [[0], [1], [2]]


def test_a_signal_to_one_process_ends_all_of_them_after_the_same_step(data, tmp_path, forked):
    flags = flags_of(data, tmp_path, max_train_steps=100_000, save_every_n_steps=2, save_state=True)
    processes = forked.start_together([flags] * 2, tmp_path / "log")
    while not (tmp_path / "new-step00000002.safetensors").exists():
        assert processes[0].exitcode is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.kill(processes[1].pid, signal.SIGTERM)
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [128 + signal.SIGTERM] * 2
    step = torch.load(tmp_path / "new-state.pt", weights_only=True)["step"]
    assert (tmp_path / "log").read_text().count(f"stopped after step {step} of 100000: run again with --resume") == 2
    assert rows(tmp_path)[-1]["step"] == step


def test_what_the_first_process_refuses_is_told_by_all(data, tmp_path, forked):
    (tmp_path / "file").touch()
    codes = forked.finish_together([flags_of(data, tmp_path / "file" / "output")] * 2, tmp_path / "log")
    told = (tmp_path / "log").read_text()
    assert codes == [1, 1]
    assert "error: output_dir " in told
    assert "error: process 0 failed: ValueError" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("world", "other", "reason"),
    [
        (1, {}, "fsdp shards the student over several processes, this one is alone"),
        (2, {"mixed_precision": "fp16"}, "fsdp is for mixed_precision bf16 or no"),
    ],
    ids=["alone", "fp16"],
)
def test_what_a_student_in_parts_cannot_do_is_refused_at_once(data, tmp_path, world, other, reason):
    with pytest.raises(ValueError, match=reason):
        check(options_of(data, tmp_path, **WHOLE, fsdp=True, **other), Workers(torch.device("cpu"), 0, world))


def torchrun(flags, log):
    """The command that a person gives, as a process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [*command, "training.train", *flags], cwd=ROOT, env=environment, stdout=file, stderr=file
        )


def test_a_lost_process_of_torchrun_ends_the_others_with_a_word(data, tmp_path):
    flags = flags_of(data, tmp_path, max_train_steps=100_000, save_every_n_steps=1)
    with torchrun(flags, tmp_path / "log") as run:
        try:
            until = time.monotonic() + 300  # a busy machine starts two processes slowly
            while not (tmp_path / "new-step00000002.safetensors").exists():
                assert run.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.1)
            workers = psutil.Process(run.pid).children()
            lost = next(worker for worker in workers if worker.environ().get("RANK") == "1")
            lost.send_signal(signal.SIGKILL)
            assert run.wait(20) != 0
            assert not psutil.wait_procs(workers, timeout=1)[1]
        finally:
            run.terminate()
    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Signal 9 (SIGKILL)" in told
    assert "rank      : 1" in told
