"""Training by many processes: torchrun really starts two of them; a process alone needs nothing of it."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.workers import Workers, buckets

ROOT = Path(__file__).resolve().parents[2]
MINUTE = 60


def torchrun(*arguments: object) -> subprocess.CompletedProcess:
    """two_workers.py in two processes on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = ROOT / "tests" / "training" / "two_workers.py"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, str(script), *map(str, arguments)], env=env, capture_output=True, text=True, timeout=2 * MINUTE
    )


@pytest.fixture
def alone(monkeypatch):
    """Without torchrun."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return Workers.start()


def gpus(monkeypatch, count: int) -> list[int]:
    """Pretends that there are so many GPUs; the ones that are then made current."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.slow
def test_two_processes_share_gradients_weights_numbers_and_failures(tmp_path):
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"0-of-2", "1-of-2", "cache"}


@pytest.mark.slow
def test_a_process_that_fails_ends_all_of_them_with_its_message(tmp_path):
    begun = time.monotonic()
    done = torchrun(tmp_path, "fail")
    assert done.returncode == 1
    assert "error: no more pictures" in done.stderr
    assert time.monotonic() - begun < MINUTE
    assert not list(tmp_path.iterdir())


def test_a_process_alone_leaves_everything_as_it_is(alone):
    weight, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    weight.grad = gradient = torch.tensor([1.0, 2.0])
    alone.mean_gradients([weight, unused])
    alone.broadcast([weight])
    alone.barrier()
    with alone.first():
        assert alone.mean(0.1) == 0.1
    alone.stop()
    assert (alone.rank, alone.world, alone.main) == (0, 1, True)
    assert weight.grad is gradient
    assert (weight.tolist(), weight.grad.tolist(), unused.grad) == ([1, 1], [1, 2], None)
    assert not torch.distributed.is_initialized()


def test_a_failure_alone_is_the_failure_itself(alone):
    with pytest.raises(OSError, match="disk full"), alone.first():
        raise OSError("disk full")


@pytest.mark.parametrize("local", [0, 2])
def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch, local):
    current = gpus(monkeypatch, 3)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    assert Workers.start().device == torch.device("cuda", local)
    assert current == [local]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    gpus(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="nproc_per_node must be at most 2, the GPUs of this machine; got process 3"):
        Workers.start()


KINDS = st.sampled_from([torch.float32, torch.float16])


@given(st.lists(st.tuples(st.integers(1, 40), KINDS), max_size=12), st.integers(1, 200))
def test_buckets_keep_the_order_and_the_limit(tensors, most):
    given = [torch.zeros(size, dtype=dtype) for size, dtype in tensors]
    made = list(buckets(given, most))
    assert [id(tensor) for bucket in made for tensor in bucket] == [id(tensor) for tensor in given]
    assert all(len({tensor.dtype for tensor in bucket}) == 1 for bucket in made)
    assert all(len(bucket) == 1 or sum(tensor.nbytes for tensor in bucket) <= most for bucket in made)
    for one, two in pairwise(made):
        assert one[0].dtype != two[0].dtype or sum(tensor.nbytes for tensor in one) + two[0].nbytes > most
