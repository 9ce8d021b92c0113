"""LyCORIS' parametrisations besides LoRA (arXiv 2309.14859): LoHa and LoKr, scaled as LyCORIS and ComfyUI do."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from .parametrisations import Parametrisation, Shape, length, tucker


class LoHa(Parametrisation):
    """Hadamard product of two matrices of rank r.

    Each is a [o, r] @ b [r, i * k]; or, Tucker-decomposed, of a core t [r, r, *k], a [r, o] and b [r, i].
    """

    PARTS: ClassVar[dict[str, str]] = {n: f"hada_{n}" for n in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
    SETS: ClassVar[tuple[set[str], ...]] = ({"w1_a", "w1_b", "w2_a", "w2_b"}, set(PARTS))
    w1_a: nn.Parameter
    w1_b: nn.Parameter
    w2_a: nn.Parameter
    w2_b: nn.Parameter
    t1: nn.Parameter | None
    t2: nn.Parameter | None

    @property
    def rank(self) -> int:
        return length(self.w1_b, 0)

    def fitting(self) -> dict[str, Shape]:
        r, (o, i, *k) = self.rank, self.shape
        a, b = ((o, r), (r, i * math.prod(k))) if self.t1 is None else ((r, o), (r, i))
        return {"w1_a": a, "w1_b": b, "w2_a": a, "w2_b": b, "t1": (r, r, *k), "t2": (r, r, *k)}

    def product(self) -> Tensor:
        if self.t1 is None or self.t2 is None:
            return (self.w1_a @ self.w1_b) * (self.w2_a @ self.w2_b)
        return tucker(self.t1, self.w1_a, self.w1_b) * tucker(self.t2, self.w2_a, self.w2_b)


class LoKr(Parametrisation):
    """Kronecker product of w1 [o1, i1] and w2 [o / o1, i / i1, *k], each whole or as a product of rank r.

    w1 = w1_a [o1, r] @ w1_b [r, i1]; w2 = w2_a [o2, r] @ w2_b [r, i2 * k], or a core t2 [r, r, *k], w2_a [r, o2] and
    w2_b [r, i2]. Of two whole matrices there is no rank, and alpha has no meaning: LyCORIS' scale is then 1.
    """

    PARTS: ClassVar[dict[str, str]] = {n: f"lokr_{n}" for n in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
    SETS: ClassVar[tuple[set[str], ...]] = tuple(
        one | two for one in ({"w1"}, {"w1_a", "w1_b"}) for two in ({"w2"}, {"w2_a", "w2_b"}, {"w2_a", "w2_b", "t2"})
    )
    w1: nn.Parameter | None
    w1_a: nn.Parameter
    w1_b: nn.Parameter | None
    w2: nn.Parameter | None
    w2_a: nn.Parameter
    w2_b: nn.Parameter | None
    t2: nn.Parameter | None

    @property
    def rank(self) -> int:
        """Of w2, or else of w1: they only differ in files that no tool writes, and this is ComfyUI's choice then."""
        factor = self.w1_b if self.w2_b is None else self.w2_b
        return 1 if factor is None else length(factor, 0)

    @property
    def scale(self) -> float:
        return 1.0 if self.w1_b is None and self.w2_b is None else super().scale

    def fitting(self) -> dict[str, Shape]:
        o, i, *k = self.shape
        first, last = (self.w1, self.w1) if self.w1_b is None else (self.w1_a, self.w1_b)
        assert first is not None
        assert last is not None
        # The greatest divisor instead of the length itself: they differ where no w2 can make up for it.
        o1, i1 = math.gcd(o, length(first, 0)), math.gcd(i, length(last, 1))
        o2, i2, r1, r2 = o // o1, i // i1, length(last, 0), self.rank
        a, b = ((o2, r2), (r2, i2 * math.prod(k))) if self.t2 is None else ((r2, o2), (r2, i2))
        shapes = {"w1": (o1, i1), "w1_a": (o1, r1), "w1_b": (r1, i1)}
        return shapes | {"w2": (o2, i2, *k), "w2_a": a, "w2_b": b, "t2": (r2, r2, *k)}

    def product(self) -> Tensor:
        w1 = self.w1 if self.w1_b is None else self.w1_a @ self.w1_b
        if self.w2_b is None:
            w2 = self.w2
        else:
            w2 = self.w2_a @ self.w2_b if self.t2 is None else tucker(self.t2, self.w2_a, self.w2_b)
        assert w1 is not None
        assert w2 is not None
        # In order in memory: torch.kron ends in a view, and a sum over two ranks may come out transposed
        return torch.kron(w1.contiguous(), w2.flatten(1).contiguous())
