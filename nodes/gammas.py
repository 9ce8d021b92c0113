"""Gamma as it goes along the trajectory: a curve over the model's time, or a list of values."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from comfy_api.latest import io
from torch import Tensor

GammasType = io.Custom("TCD_GAMMAS")

# Name -> how far from `start` to `end`, when the trajectory is that far from noise to data; both in [0, 1].
CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda way: way,
    "smooth": lambda way: (1 - math.cos(math.pi * way)) / 2,
    "early": lambda way: 1 - (1 - way) ** 2,
    "late": lambda way: way**2,
}


NUMBER = re.compile(r"[+-]?([0-9]*\.?[0-9]+|[0-9]+\.)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Gammas:
    """From `start` to `end` along a curve; or `values`, one for each step.

    The curve follows the noise level that a step goes to, not the step's number, so that split sigmas are one way.
    """

    start: float
    end: float
    curve: str = "linear"
    values: tuple[float, ...] = ()

    def along(self, schedule, targets: Tensor) -> list[float]:
        """Gamma of each step, by the noise levels [n] that the steps go to. Raises ValueError for another count.

        One value less than steps is enough: the last step puts no noise back.
        """
        if not self.values:
            ways = 1 - (schedule.index_of(targets) / (schedule.steps - 1)).clamp(0, 1)
            return [self.start + (self.end - self.start) * CURVES[self.curve](way) for way in ways.tolist()]
        if len(self.values) not in (len(targets) - 1, len(targets)):
            raise ValueError(f"{len(targets)} steps need as many values of gamma, got {len(self.values)}")
        return list(self.values) + [0.0] * (len(targets) - len(self.values))


def values_of(text: str) -> tuple[float, ...]:
    """The numbers of "0.5, 0.3, 0.2"; none for an empty text. Raises ValueError for one that is not in [0, 1]."""
    values = []
    for word in re.split(r"[\s,;]+", text.strip()) if text.strip() else []:
        value = float(word) if NUMBER.fullmatch(word) else math.nan
        if not 0 <= value <= 1:
            raise ValueError(f"values must be numbers in [0, 1], such as 0.5, 0.3, 0.2; got {word!r:.100}")
        values.append(value)
    return tuple(values)
