"""The numbers of a run: for the progress bar, as JSON lines beside the output, and for TensorBoard."""

import json
import logging
import time
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from PIL import Image

from ..options import Options
from ..save import replace

SMOOTHED = 100  # steps whose mean loss the progress bar shows, and whose speed is told


def rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The rows of a log up to that step. A line that an interrupted run left unfinished ends it."""
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if step and path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if row["step"] > step:
            break
        found.append(row)
    return found


def line_of(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


class Log:
    """The log of one run, which a resumed one goes on with from `first_step`; steps count from 1.

    A row has the mean loss since the row before, the last gradient norm and learning rate, samples a second in a median
    step (so that pictures and saves do not count), the seconds that the run took so far, and what `row` adds. A disk
    that is full costs rows, not the run.
    """

    def __init__(self, opts: Options, first_step: int, last_step: int):
        self.every, self.last_step = opts.log_every_n_steps, last_step
        self.path = Path(opts.output_dir, f"{opts.output_name}.jsonl")
        kept = rows_until(self.path, first_step)
        replace(self.path, lambda scratch: scratch.write_bytes("".join(map(line_of, kept)).encode()))
        self.newest: dict[str, Any] = {}  # the row at the end of the file, which begins at `start`
        self.start = self.end = self.path.stat().st_size
        self.recent: deque[float] = deque(maxlen=SMOOTHED)
        self.durations: deque[float] = deque(maxlen=SMOOTHED)  # of steps, in seconds
        self.losses: list[float] = []
        self.last = time.monotonic()
        self.began = self.last - max((row.get("seconds", 0) for row in kept), default=0)
        self.writer: Any = writer(opts, first_step) if opts.log_with == "tensorboard" else None

    @staticmethod
    def check(opts: Options) -> None:
        """Raises ValueError where TensorBoard is asked for but missing."""
        if opts.log_with == "tensorboard" and find_spec("tensorboard") is None:
            raise ValueError("log_with tensorboard needs the package tensorboard: pip install tensorboard")

    def add(self, step: int, loss: float, norm: float, lr: float, samples: int) -> dict[str, str]:
        """Count in one step of so many samples; returns what the progress bar shows."""
        self.recent.append(loss)
        self.losses.append(loss)
        now = time.monotonic()
        self.durations.append(now - self.last)
        self.last = now
        speed = samples / max(median(self.durations), 1e-9)
        if step % self.every == 0 or step == self.last_step:
            numbers = {"loss": fmean(self.losses), "norm": norm, "lr": lr, "samples/s": round(speed, 3)}
            self.row(step, {**numbers, "seconds": round(now - self.began, 1)})
            self.losses.clear()
        return {"loss": f"{fmean(self.recent):.5f}", "samples/s": f"{speed:.3g}"}

    def row(self, step: int, numbers: dict[str, float]) -> None:
        """Put numbers into the row of that step, a new one if it is not the newest."""
        try:
            self.write({"step": step, **numbers})
            for name, value in numbers.items() if self.writer else ():
                self.writer.add_scalar(name, value, step)
        except OSError as error:
            logging.warning("step %d was not logged, the run goes on: %s", step, error)

    def write(self, row: dict[str, Any]) -> None:
        """Write the row at the end of the file, or over the newest one that it adds to."""
        if row["step"] != self.newest.get("step"):
            self.start, self.newest = self.end, {}
        self.newest = {**self.newest, **row}
        with self.path.open("r+b") as file:
            file.seek(self.start)
            file.write(line_of(self.newest).encode())
            file.truncate()
            self.end = file.tell()

    def picture(self, step: int, path: Path) -> None:
        """Show a picture file in TensorBoard."""
        if self.writer:
            with Image.open(path) as image:
                self.writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Without an error where the disk is full: the result of the run is not saved yet."""
        try:
            if self.writer:
                self.writer.close()
        except OSError as error:
            logging.warning("TensorBoard has not the last rows, the run goes on: %s", error)


def writer(opts: Options, first_step: int) -> Any:
    """TensorBoard's, which hides what it was told of the steps that a resumed run takes again."""
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(opts.logging_dir or Path(opts.output_dir, "logs"), opts.output_name)
    return SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else 0)
