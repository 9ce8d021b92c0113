"""What an adapter holds for one layer, and the dense weight difference that it stands for; LoRA itself.

In the shapes below o, i and k are the layer's outputs, inputs and kernel (nothing for a Linear), and r is the rank.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout

Layer = nn.Linear | nn.Conv2d
Shape = tuple[int, ...]


def length(factor: Tensor, axis: int) -> int:
    """At least 1, also where there is no such axis: of a factor that does not fit, the check of the shapes tells."""
    return max(1, factor.shape[axis]) if factor.ndim > axis else 1


def tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A kernel from its core [m, n, *k], left [m, o] and right [n, i]: [o, i, *k]."""
    return torch.einsum("mn...,mo,ni->oi...", core, left, right)


def apply(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `layer` would compute with this weight and bias."""
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, bias)  # the layer's stride, dilation and way of padding
    return F.linear(x, weight, bias)


class Parametrisation(nn.Module, ABC):
    """The path of one layer: factors, parameters in float32, whose product is a difference of its weight.

    `shape` is that of the layer's weight, [o, i, *k]; `factors` are by name, those of SETS that are there; `alpha`
    defaults to the rank (scale 1).
    """

    PARTS: ClassVar[dict[str, str]]  # factor -> its name in a file
    SETS: ClassVar[tuple[set[str], ...]]  # factors that go together

    def __init__(self, shape: Shape, factors: Mapping[str, Tensor], alpha: float | None = None):
        super().__init__()
        self.shape = torch.Size(shape)
        for name in self.PARTS:
            factor = factors[name].detach().to(torch.float32, copy=True) if name in factors else None
            self.register_parameter(name, None if factor is None else nn.Parameter(factor))
        self.alpha = self.rank if alpha is None else alpha
        self.dropout = Dropout()

    @property
    def drops(self) -> bool:
        """Whether something is dropped now."""
        return self.training and bool(self.dropout)

    @property
    def factors(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters(recurse=False))

    @property
    @abstractmethod
    def rank(self) -> int:
        """The inner width of the factors, which alpha is relative to."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @abstractmethod
    def fitting(self) -> dict[str, Shape]:
        """The shapes that the factors must have for this layer and rank."""

    @abstractmethod
    def product(self) -> Tensor:
        """As many numbers as the layer's weight has, in its order, without the scale."""

    def check(self) -> None:
        """Raises ValueError unless every factor fits the layer."""
        wanted = self.fitting()
        for name, factor in self.factors.items():
            if tuple(factor.shape) != wanted[name]:
                raise ValueError(f"{self.PARTS[name]} has shape {tuple(factor.shape)}, this layer wants {wanted[name]}")

    def delta(self) -> Tensor:
        """The dense weight difference that this path stands for, shape of the layer's weight."""
        return self.product().reshape(self.shape) * self.scale

    def path(self, layer: Layer, x: Tensor) -> Tensor:
        """What is added to the output of `layer` for the input `x`."""
        return apply(layer, x, self.delta().to(x.dtype))


class LoRA(Parametrisation):
    """up [o, r, 1, 1] @ down [r, i, *k]; or, Tucker-decomposed, up, mid [r, r, *k] and down [r, i, 1, 1]."""

    PARTS: ClassVar[dict[str, str]] = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
    SETS: ClassVar[tuple[set[str], ...]] = ({"down", "up"}, {"down", "up", "mid"})
    down: nn.Parameter
    up: nn.Parameter
    mid: nn.Parameter | None

    @property
    def rank(self) -> int:
        return length(self.down, 0)

    def fitting(self) -> dict[str, Shape]:
        r, (o, i, *k) = self.rank, self.shape
        point = (1,) * len(k)
        return {"down": (r, i, *(k if self.mid is None else point)), "up": (o, r, *point), "mid": (r, r, *k)}

    def product(self) -> Tensor:
        down, up = self.down.flatten(1), self.up.flatten(1)
        return up @ down if self.mid is None else tucker(self.mid, up.T, down)

    def path(self, layer: Layer, x: Tensor) -> Tensor:
        if self.mid is not None:
            return super().path(layer, x)
        inner, up = apply(layer, x, self.down.to(x.dtype)), (self.up * self.scale).to(x.dtype)
        conv = isinstance(layer, nn.Conv2d)
        if self.drops:
            inner = self.dropout.apply(inner, 1 if conv else -1)
        return (F.conv2d if conv else F.linear)(inner, up)

    @classmethod
    def fresh(cls, layer: Layer, rank: int, alpha: float | None = None) -> "LoRA":
        """One to train: `up` is zero, so that it starts out as nothing."""
        o, *rest = layer.weight.shape
        down = nn.init.kaiming_uniform_(torch.empty(rank, *rest), a=math.sqrt(5))
        return cls(layer.weight.shape, {"down": down, "up": torch.zeros(o, rank, *[1] * len(rest[1:]))}, alpha)
