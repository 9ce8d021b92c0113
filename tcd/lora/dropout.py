"""What training leaves out of a LoRA at random, as kohya's networks do; nothing in evaluation."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Dropout:
    """Probabilities: of each inner value, of each rank for a whole sample, and of a layer's path. Each in [0, 1).

    What stays of values and of ranks is scaled up, so that the mean is the same. Raises ValueError for others.
    """

    dropout: float = 0.0
    rank_dropout: float = 0.0
    module_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def skips(self) -> bool:
        """Whether the layer's path is left out this time."""
        return self.module_dropout > 0 and torch.rand(1).item() < self.module_dropout

    def apply(self, inner: Tensor, axis: int) -> Tensor:
        """The inner values [B, ...] with some dropped; their ranks are along `axis`."""
        if self.dropout:
            inner = F.dropout(inner, self.dropout)
        if self.rank_dropout:
            shape = [1] * inner.ndim
            shape[0], shape[axis] = inner.shape[0], inner.shape[axis]
            stays = torch.rand(shape, device=inner.device) >= self.rank_dropout
            inner = inner * stays / (1 - self.rank_dropout)
        return inner
