"""The trainer's command line in processes that are forked with everything imported, so that a run takes a second."""

import multiprocessing
import os
import socket
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

import small_models  # noqa: F401 - loaders of checkpoints
import torch

from training import host, train

host.start()
import comfy.sd  # noqa: E402, F401 - what a run would import first
import torch.distributed.fsdp  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def run(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """`python -m training.train` with these arguments, in this process; what it says goes to the file `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= environment
    torch.set_num_threads(1)
    sys.argv = ["training.train", *arguments]
    train.main()


def start(arguments: list[str], log: Path, **environment: str) -> ForkServerProcess:
    """The same in a process of its own, with nothing of this one but the environment of the first call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=run, args=(arguments, log, environment))
    alone = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with mock.patch.dict(os.environ, alone):
        process.start()
    return process


def finish(arguments: list[str], log: Path) -> int | None:
    """Wait for such a process to end; its exit status."""
    process = start(arguments, log)
    process.join()
    return process.exitcode


def start_together(each: list[list[str]], log: Path) -> list[ForkServerProcess]:
    """A process for each list of arguments, as torchrun would start them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(len(each)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(len(each))]
    return [start(one, log, **shared, **rank) for one, rank in zip(each, ranks, strict=True)]


def finish_together(each: list[list[str]], log: Path) -> list[int | None]:
    """Wait for such processes to end; their exit statuses."""
    processes = start_together(each, log)
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]
