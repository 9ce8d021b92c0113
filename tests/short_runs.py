"""Runs of three steps of the whole trainer, from Python and from the command line."""

import json
from pathlib import Path
from typing import Any

from dataset_files import add
from host_process import ROOT
from safetensors import safe_open

from training import options
from training.options import Options

COLORS = ("red", "green", "blue", "yellow")
SHORT = {
    "pretrained_model_name_or_path": str(ROOT / "demo" / "tiny.safetensors"),  # which this loader does not look at
    "checkpoint_loader": "small_models:sd15",
    "resolution": "64",
    "output_name": "new",
    "save_precision": "float",
    "network_dim": 2,
    "network_args": ("target=attention",),
    "max_train_steps": 3,
    "learning_rate": 1e-3,
    "log_every_n_steps": 1,
}


def pictures(folder: Path, sizes: tuple = ((64, 64),)) -> Path:
    """A kohya folder of four captioned pictures, each twice, with these sizes in turn."""
    for i, color in enumerate(COLORS):
        add(folder / "2_hearts", f"{color}.png", f"a {color} heart", sizes[i % len(sizes)], color)
    return folder


def named(data: Path, output: Path, **other: Any) -> dict[str, Any]:
    """Options of a short run by name, all others at their defaults."""
    return {**SHORT, "train_data_dir": str(data), "output_dir": str(output), **other}


def options_of(data: Path, output: Path, **other: Any) -> Options:
    return options.check(Options(**named(data, output, **other)))


def flags_of(data: Path, output: Path, **other: Any) -> list[str]:
    """The same for the command line."""
    flags = []
    for name, value in named(data, output, **other).items():
        if isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{name}")
        else:
            flags += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    return flags


def content(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """(tensors as bytes, metadata) of a safetensors file, whose metadata has no order."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}, file.metadata()


def rows(output: Path) -> list[dict[str, Any]]:
    """The rows of a run's log."""
    return [json.loads(line) for line in (output / "new.jsonl").read_text(encoding="utf-8").splitlines()]
