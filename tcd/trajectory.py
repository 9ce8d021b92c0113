"""A sampled trajectory as tensors: what `sample` yielded, kept on the CPU; saved to and loaded from one file."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from . import metrics
from .sample import Step


@dataclass(frozen=True, eq=False)
class Trajectory:
    """n steps t -> s' -> s. Times are [n]; states [n, B, C, ...].

    `unit` says what the times are: "t" (the schedule's time) or "sigma" (ComfyUI's noise level).
    """

    t: Tensor
    s_prime: Tensor
    s: Tensor
    x_t: Tensor
    x0: Tensor
    x_s_prime: Tensor
    x_s: Tensor
    unit: str = "t"

    @classmethod
    def record(cls, steps: Iterable[Step], unit: str = "t") -> "Trajectory":
        """Run the generator to its end and keep every step, copied to the CPU. Raises ValueError for no step."""
        rows = [{key: getattr(step, key).detach().cpu().clone() for key in STATES} for step in steps]
        if not rows:
            raise ValueError("the trajectory is empty: no step was sampled")
        return cls(**{key: torch.stack([row[key] for row in rows]) for key in STATES}, unit=unit)

    def __len__(self) -> int:
        return len(self.t)

    @property
    def final(self) -> Tensor:
        """The sample, [B, C, ...]: where the last step landed."""
        return self.x_s[-1]

    def drift(self) -> Tensor:
        """Change of the clean prediction from step to step, [n - 1, B]: `metrics.drift`."""
        return metrics.drift(self.x0)

    def save(self, path: str | os.PathLike) -> None:
        """One safetensors file, written atomically; its folder is made where missing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(path.name + ".tmp")
        tensors = {key: getattr(self, key).contiguous() for key in STATES}
        scratch.write_bytes(save(tensors, {"tcd.trajectory": json.dumps({"version": 1, "unit": self.unit})}))
        scratch.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Trajectory":
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError for a file that holds no trajectory."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"no such trajectory file: {path}")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["tcd.trajectory"])
                return cls(**{key: file.get_tensor(key) for key in STATES}, unit=header["unit"])
        except Exception as error:
            raise ValueError(f"{path} holds no trajectory: {error}") from error


STATES = tuple(field.name for field in fields(Trajectory) if field.name != "unit")
