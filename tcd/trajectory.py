"""A sampled trajectory as tensors: what `sample` yielded, kept on the CPU; its measures; kept in a file."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from . import metrics
from .sample import Step

HEADER, VERSION = "tcd.trajectory", 1  # entry of a file's metadata, and what `load` reads
UNITS = ("t", "sigma")


@dataclass(frozen=True, eq=False)
class Plane:
    """States as points of the plane of their two main components. Straight paths have zeros as the second one.

    path and reference are [n + 1, 2] in the states' unit, nan where a state is not finite; explained [2] is the share
    of the variance along each axis. All float64.
    """

    path: Tensor
    reference: Tensor | None
    explained: Tensor


@dataclass(frozen=True, eq=False)
class Trajectory:
    """n steps t -> s' -> s. Times are [n]; states [n, B, C, ...].

    `unit` says what the times are: "t" (the schedule's time) or "sigma" (ComfyUI's noise level). `reference`
    [n + 1, B, C, ...] is the deterministic path (gamma 0) of the same start, to compare with: its states at t[0], s[0],
    ..., s[-1]. Raises ValueError for another unit, no step, or other shapes.
    """

    t: Tensor
    s_prime: Tensor
    s: Tensor
    x_t: Tensor
    x0: Tensor
    x_s_prime: Tensor
    x_s: Tensor
    unit: str = "t"
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}; got {self.unit!r}")
        n, *state = self.x_t.shape
        if len(state) < 2 or not self.x_t.numel():
            raise ValueError(f"states must be [n >= 1, B, C, ...], got x_t {[*self.x_t.shape]}")
        for key, tensor in self.tensors().items():
            if not tensor.is_floating_point():
                raise ValueError(f"{key} must hold floating-point numbers, got {tensor.dtype}")
            wanted = [n] if key in TIMES else [n + (key == "reference"), *state]
            if [*tensor.shape] != wanted:
                raise ValueError(f"{key} must be {wanted}, as x_t is {[n, *state]}; got {[*tensor.shape]}")

    @classmethod
    def record(cls, steps: Iterable[Step], unit: str = "t", reference: Tensor | None = None) -> "Trajectory":
        """Run the generator to its end and keep every step, copied to the CPU. Raises ValueError for no step."""
        rows = [{key: getattr(step, key).detach().cpu().clone() for key in TIMES + STATES} for step in steps]
        if not rows:
            raise ValueError("the trajectory is empty: no step was sampled")
        stacked = {key: torch.stack([row[key] for row in rows]) for key in TIMES + STATES}
        return cls(**stacked, unit=unit, reference=None if reference is None else reference.detach().cpu().clone())

    def __len__(self) -> int:
        return len(self.t)

    def tensors(self) -> dict[str, Tensor]:
        """Times and states by name; the reference where there is one."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in named.items() if isinstance(value, Tensor)}

    @property
    def nbytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    @property
    def final(self) -> Tensor:
        """The sample, [B, C, ...]: where the last step landed."""
        return self.x_s[-1]

    @property
    def states(self) -> Tensor:
        """The path, [n + 1, B, C, ...]: the start, and where every step landed."""
        return torch.cat([self.x_t[:1], self.x_s])

    @property
    def injected(self) -> Tensor:
        """x_s - x_s_prime, [n, B, C, ...]: what every step put on top of where it had denoised to.

        Where alpha is 1, as in ComfyUI's units of all but flow models, this is the noise itself, of variance
        s^2 - s'^2. Elsewhere it holds (alpha_s / alpha_s' - 1) x_s_prime too, as a trajectory knows no schedule.
        """
        return self.x_s - self.x_s_prime

    def item(self, item: int) -> "Trajectory":
        """One picture of the batch, [n, 1, C, ...], counted from 0. Raises ValueError beyond the batch."""
        batch = self.x_t.shape[1]
        if not 0 <= item < batch:
            raise ValueError(f"item must be below the batch size {batch}, got {item} (the first is 0)")
        one = {key: tensor[:, item : item + 1] for key, tensor in self.tensors().items() if key not in TIMES}
        return replace(self, **one)

    def drift(self) -> Tensor:
        """Change of the clean prediction from step to step, [n - 1, B]: `metrics.drift`."""
        return metrics.drift(self.x0)

    def distance(self) -> Tensor | None:
        """How far each of the `states` is from the reference's, [n + 1, B], as a part of that one's size; or None.

        Both are root mean squares. Where the reference is 0 throughout, the distance is not divided.
        """
        if self.reference is None:
            return None
        reference = metrics.widened(self.reference)
        size = metrics.rms(reference, dims=2)
        return metrics.rms(metrics.widened(self.states) - reference, dims=2) / torch.where(size == 0, 1, size)

    def detail(self) -> Tensor:
        """Share of the clean predictions' energy that is fine detail, [n, B]: `metrics.state_detail`."""
        return metrics.state_detail(self.x0)

    def plane(self, item: int = 0) -> Plane:
        """The plane in which the states of one picture, and of its reference, spread the most; see `Plane`.

        The start lies on the left and below. States that are all alike lie at 0. Raises ValueError beyond the batch.
        """
        one = self.item(item)
        rows = one.states if one.reference is None else torch.cat([one.states, one.reference])
        points, explained = _main_components(rows.flatten(1).double())
        path, reference = points[: len(self) + 1], points[len(self) + 1 :]
        return Plane(path, None if one.reference is None else reference, explained)

    def save(self, path: str | os.PathLike) -> None:
        """One safetensors file, written atomically; its folder is made where missing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(path.name + ".tmp")
        # Copied, as the format refuses tensors that share memory, such as levels[:-1] and levels[1:].
        tensors = {key: value.clone(memory_format=torch.contiguous_format) for key, value in self.tensors().items()}
        scratch.write_bytes(save(tensors, {HEADER: json.dumps({"version": VERSION, "unit": self.unit})}))
        scratch.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Trajectory":
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError for a file that holds no trajectory."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"no such trajectory file: {path}")
        try:
            with safe_open(path, framework="pt") as file:
                unit = _unit_of(file.metadata() or {})
                kept = [*TIMES, *STATES, *({"reference"} & {*file.keys()})]
                if missing := [key for key in kept if key not in file.keys()]:
                    raise ValueError(f"it has no {missing[0]}")
                return cls(**{key: file.get_tensor(key) for key in kept}, unit=unit)
        except Exception as error:
            raise ValueError(f"{path} holds no trajectory that can be read: {error}") from error


TIMES = ("t", "s_prime", "s")
STATES = ("x_t", "x0", "x_s_prime", "x_s")


def _unit_of(metadata: Mapping[str, str]) -> Any:
    """What a file's header says of the unit, which may be no unit, once it says that this version reads it."""
    if HEADER not in metadata:
        raise ValueError("it was not written by tcd.Trajectory.save")
    try:
        header = json.loads(metadata[HEADER])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"its {HEADER} is no JSON object: {metadata[HEADER]:.100}")
    if header.get("version") != VERSION:
        raise ValueError(f"it is of version {header.get('version')}, and this tcd reads version {VERSION} alone")
    return header.get("unit")


def _main_components(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(rows [n, d] as points [n, 2] along their two main components, the share of the variance along each [2]).

    Through the [n, n] products of the centred rows, as d is large. Each component's sign is such that its first row
    clearly off the centre is negative.
    """
    finite = rows.isfinite().all(1)
    centred = torch.where(finite[:, None], rows - rows[finite].mean(0), 0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values = torch.where(values > 1e-12 * values[-1], values, 0)  # a float32's rounding is no direction
    points = (vectors * values.sqrt())[:, -2:].flip(1)
    clear = points.abs() > 1e-3 * points.abs().amax(0)
    first = points.gather(0, clear.int().argmax(0, keepdim=True))
    points = torch.where(first > 0, -points, points)
    points[~finite] = torch.nan
    return points, values[-2:].flip(0) / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
