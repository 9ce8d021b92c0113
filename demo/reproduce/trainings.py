"""Distil students with the trainer: several at a time, each in a process of its own that goes on where it was stopped.

On a CPU two trainings with one thread each do half as much again as one with two, so as many run as there are cores.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from tqdm import tqdm

from training.data.cache import key
from training.options.command_line import read_toml
from training.watch.log import rows_until

from .memory import content
from .recipes import Changes

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "demo" / "tcd.toml"
CHECKPOINT = ROOT / "demo" / "tiny.safetensors"


class TrainingError(Exception):
    """A training that ended with an error; the text is the end of what it said."""


def jobs() -> int:
    """Trainings at a time: one on a GPU, else one for each core."""
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


@dataclass(frozen=True)
class Training:
    """One student, in files of its name: the LoRA, its log and state, and the recipe that it was made by."""

    name: str
    changes: Changes
    folder: Path
    data: Path

    @property
    def lora(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def recipe(self) -> str:
        """Of everything that the student follows from, as far as files and options tell it."""
        return key(content(CHECKPOINT), sorted({**read_toml(BASE), **self.changes}.items()))

    @property
    def stamp(self) -> Path:
        return self.folder / f"{self.name}.recipe"

    @property
    def steps(self) -> int:
        return int(self.changes["max_train_steps"])

    def done(self) -> bool:
        return self.lora.is_file() and self.stamped()

    def stamped(self) -> bool:
        """Whether what is there was made by this recipe."""
        return self.stamp.is_file() and self.stamp.read_text(encoding="ascii") == self.recipe

    def rows(self) -> list[dict]:
        """What the log says so far; it may be written just now."""
        return rows_until(self.folder / f"{self.name}.jsonl", self.steps)

    def steps_done(self) -> int:
        return self.steps if self.done() else max((row["step"] for row in self.rows()), default=0)

    def command(self) -> list[str]:
        """The trainer's own command line."""
        options = {
            "train_data_dir": self.data,
            "output_dir": self.folder,
            "output_name": self.name,
            "resume": "auto",
            "save_every_n_steps": max(1, min(250, self.steps)),
            "save_last_n_steps": max(1, min(250, self.steps)),
            "lr_warmup_steps": min(read_toml(BASE)["lr_warmup_steps"], self.steps),
            **self.changes,
        }
        switches = ("cache_latents_to_disk", "cache_text_encoder_outputs_to_disk", "save_state")
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "training.train", "--config_file", str(BASE)]
        return [*command, *flags, *(f"--{name}" for name in switches)]

    def run(self, threads: int, *more: str) -> None:
        """Train to the end, or on from the last saved state; `more` ends the command line. Raises TrainingError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.stamped():
            for old in [*self.folder.glob(f"{self.name}.*"), *self.folder.glob(f"{self.name}-s*")]:
                old.unlink()
            self.stamp.write_text(self.recipe, encoding="ascii")
        command, environment = [*self.command(), *more], {**os.environ, "OMP_NUM_THREADS": str(threads)}
        said = self.folder / f"{self.name}.out"
        with said.open("wb") as out:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            end = said.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()[-5:]
            raise TrainingError(f"training {self.name} ended with code {done.returncode} ({said}):\n" + "\n".join(end))


@contextmanager
def progress(trainings: list[Training]) -> Iterator[Callable[[], None]]:
    """A bar of the steps of all of them, read from their logs."""
    with tqdm(total=sum(training.steps for training in trainings), desc="distil", unit="step") as bar:

        def look() -> None:
            bar.n = sum(training.steps_done() for training in trainings)
            bar.refresh()

        yield look


def until_one_fails(threads: int) -> Callable[[Training], None]:
    """What runs a training, and none any more as soon as one has failed."""
    failed = Event()

    def run(training: Training) -> None:
        if failed.is_set():
            return
        try:
            training.run(threads)
        except BaseException:
            failed.set()
            raise

    return run


def distil(trainings: Iterable[Training]) -> None:
    """Train all that are not done. Raises TrainingError."""
    wanted = [training for training in trainings if not training.done()]
    if not wanted:
        return
    cores = os.cpu_count() or 1
    print("encode pictures and captions, where they are not yet", flush=True)
    wanted[0].run(cores, "--dry_run")  # alone, on all cores: every training reads what it leaves in the caches
    run, pool = until_one_fails(max(1, cores // jobs())), ThreadPoolExecutor(jobs())
    try:
        with progress(wanted) as look:
            futures = [pool.submit(run, training) for training in wanted]
            while wait(futures, 1).not_done:
                look()
    finally:
        pool.shutdown(cancel_futures=True)  # what runs comes to its end, or is told to stop as this process was
    for future in futures:
        future.result()
