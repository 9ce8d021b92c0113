"""What a resumed run goes on from, so that it ends in the same bits as one that was not interrupted.

A state holds the trained weights (with TCF(S+)'s embedding), their running average, the optimizer and fp16's scaler.
Everything else, which is data, noise, dropout and learning rate, follows from the options and the step.
"""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from .data.cache import weights_key
from .network import Parts
from .optim import go_to
from .options import FIELDS, Options
from .save import replace
from .sharding import shared_like, whole

# Options that do not change what is learned: a run may go on with others without a word.
FREE = {
    "resume",
    "dry_run",
    "output_dir",
    "max_data_loader_n_workers",
    "training_comment",
    "no_metadata",
    "vae_batch_size",
}
FREE |= {name for name in FIELDS if name.startswith(("save_", "sample_", "log", "ode_error_", "cache_"))}
LOOKED_AT = 4096  # numbers of each of the teacher's tensors, to know it again

Saved = dict[str, Any]

# What a state is made of, and what each is.
PARTS = {
    "step": int,
    "options": dict,
    "about": dict,
    "trained": dict,
    "average": list,
    "optimizer": dict,
    "scaler": dict,
}


def check(saved: Any) -> None:
    """Raises ValueError unless all parts are there, and what was trained is finite."""
    if not isinstance(saved, dict):
        raise ValueError(f"it holds {saved!r:.100}")
    for name, kind in PARTS.items():
        if not isinstance(saved.get(name), kind):
            got = f"{saved[name]!r:.100}" if name in saved else "none"
            raise ValueError(f"its {name} must be of type {kind.__name__}, got {got}")
    if saved["step"] < 0:
        raise ValueError(f"its step must be at least 0, got {saved['step']}")
    for name, tensor in saved["trained"].items():
        if not isinstance(tensor, Tensor) or not bool(tensor.isfinite().all()):
            raise ValueError(f"its {name} is not finite")


class State:
    """One file, always of the latest save, replaced at once or not at all.

    It is written by torch.save and read with weights_only, so that nothing in a file from elsewhere can run code.
    """

    def __init__(
        self,
        opts: Options,
        parts: Parts,
        optimizer: torch.optim.Optimizer,
        schedule: LambdaLR,
        scaler: torch.amp.GradScaler,
    ):
        self.opts, self.parts = opts, parts
        self.optimizer, self.schedule, self.scaler = optimizer, schedule, scaler
        self.path = Path(opts.output_dir, f"{opts.output_name}-state.pt")

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a run must share with the one that wrote the state, by the words that an error has for it."""
        weights = {name: list(tensor.shape) for name, tensor in self.parts.trained.state_dict().items()}
        return {
            "the teacher's weights": weights_key(self.parts.net.unet, LOOKED_AT),
            "the weights to train": weights,
            "the optimizer": " ".join([type(self.optimizer).__qualname__, *self.opts.optimizer_args]),
            "the running average": bool(self.parts.ema),
        }

    def collect(self, step: int, keep: bool = True) -> Saved:
        """Everything after `step` steps, for `write`. All processes have to call it; one that writes `keep`s it."""
        tensors = {
            "trained": self.parts.trained.state_dict(),
            "average": self.parts.ema.average if self.parts.ema else [],
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        return {**whole(tensors, keep), "step": step, "about": self.about, "options": vars(self.opts)}

    def write(self, saved: Saved) -> None:
        """Raises OSError where it cannot be written; the earlier state is then kept."""
        replace(self.path, lambda scratch: torch.save(saved, scratch))

    def resume(self) -> int:
        """Load the state that was asked for; returns the step to go on from, 0 without one.

        Raises ValueError for a file that is none, or one of another teacher, network or optimizer.
        """
        path = self.path if self.opts.resume == "auto" else Path(self.opts.resume)
        if not self.opts.resume or not path.is_file():
            return 0
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=self.opts.fsdp)
            check(saved)
        except Exception as error:
            raise ValueError(f"{path} is no state that can be resumed: {error}") from error
        before, about, step = saved["options"], saved["about"], saved["step"]
        changed = self.changed(before)
        if other := [name for name, value in self.about.items() if about.get(name) != value]:
            reason = f"{path} is a state of another run, {' and '.join(other)} differ"
            raise ValueError(f"{reason}; options then and now: {changed or 'the same'}")
        try:
            self.load(saved)
        except Exception as error:  # Python's and torch's own, for content that is not as it says
            reason = "its weights, average, optimizer or scaler do not fit this run"
            raise ValueError(f"{path} is no state that can be resumed: {reason}") from error
        go_to(self.schedule, step)  # as the options have it now, and not as it was in the state
        if changed:
            logging.warning("this run began with other options: %s", changed)
        return step

    def load(self, saved: Saved) -> None:
        own = self.parts.trained.state_dict()
        self.parts.trained.load_state_dict(
            {name: shared_like(own[name], value) for name, value in saved["trained"].items()}
        )
        average = self.parts.ema.average if self.parts.ema else []
        for tensor, value in zip(average, saved["average"], strict=True):
            tensor.copy_(shared_like(tensor, value))
        for i, state in saved["optimizer"]["state"].items():
            state |= {name: shared_like(self.parts.weights[i], value) for name, value in state.items()}
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])

    def changed(self, before: dict[str, Any]) -> str:
        """Which options that matter differ from those that the run began with, in words."""
        now = vars(self.opts)
        names = [name for name in FIELDS if name not in FREE and before.get(name) != now[name]]
        return ", ".join(f"{name} ({before.get(name)!r} -> {now[name]!r})" for name in names)
