"""A network of every kind of layer, adapters of it that do something, and what files hold for a layer."""

import math

import torch
from torch import Tensor, nn

from tcd import lora


class Net(nn.Module):
    """Every kind of layer that can be adapted, and two that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", dilation=2), nn.SiLU())])
        self.around = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.around(self.blocks[0](self.stem(x)))
        return self.head(self.norm(self.point(self.depthwise(x))).mean((2, 3)))


LAYERS = ["stem", "blocks.0.0", "around", "point", "head"]
KEYS = {"lora_unet_stem", "lora_unet_blocks_0_0", "lora_unet_around", "lora_unet_point", "lora_unet_head"}


def trained(net: nn.Module, rank: int = 2, seed: int = 2, **how) -> lora.Lora:
    """An adapter that does something."""
    adapter = lora.inject(net, rank, **how)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapter


def plain(adapter: lora.Lora) -> list[lora.LoRA]:
    """The paths of an adapter that has LoRA alone."""
    return [path for path in adapter.paths.values() if isinstance(path, lora.LoRA)]


def weight_of(net: nn.Module, name: str) -> Tensor:
    return net.get_parameter(f"{name}.weight").detach()


def factors(whole: int) -> tuple[int, int]:
    """Two numbers that make `whole`, the first the least that divides it."""
    first = next(n for n in range(2, whole + 1) if whole % n == 0)
    return first, whole // first


def lokr_shapes(one: str, two: str, shape: torch.Size, r: int) -> dict[str, tuple[int, ...]]:
    """`one` and `two`: whole, or as a product, or in a core."""
    (o1, o2), (i1, i2), k = factors(shape[0]), factors(shape[1]), shape[2:]
    ones = {"whole": {"w1": (o1, i1)}, "product": {"w1_a": (o1, r), "w1_b": (r, i1)}}
    twos = {
        "whole": {"w2": (o2, i2, *k)},
        "product": {"w2_a": (o2, r), "w2_b": (r, i2 * math.prod(k))},
        "core": {"w2_a": (r, o2), "w2_b": (r, i2), "t2": (r, r, *k)},
    }
    return {f"lokr_{name}": size for name, size in (ones[one] | twos[two]).items()}


def lora_shapes(shape: torch.Size, r: int, mid: bool) -> dict[str, tuple[int, ...]]:
    o, i, *k = shape
    point = [1] * len(k)
    core = {"lora_mid.weight": (r, r, *k)} if mid else {}
    return {"lora_down.weight": (r, i, *(point if mid else k)), "lora_up.weight": (o, r, *point), **core}


def loha_shapes(shape: torch.Size, r: int, core: bool) -> dict[str, tuple[int, ...]]:
    o, i, *k = shape
    a, b = ((r, o), (r, i)) if core else ((o, r), (r, i * math.prod(k)))
    cores = {"hada_t1": (r, r, *k), "hada_t2": (r, r, *k)} if core else {}
    return {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": a, "hada_w2_b": b, **cores}


# Kind of parametrisation -> (shape of the layer's weight, rank) -> shapes of the parts, as LyCORIS writes them
SHAPES = {
    "lora": lambda shape, r: lora_shapes(shape, r, False),
    "lora-mid": lambda shape, r: lora_shapes(shape, r, True),
    "loha": lambda shape, r: loha_shapes(shape, r, False),
    "loha-core": lambda shape, r: loha_shapes(shape, r, True),
    "lokr-whole-whole": lambda shape, r: lokr_shapes("whole", "whole", shape, r),
    "lokr-whole-product": lambda shape, r: lokr_shapes("whole", "product", shape, r),
    "lokr-whole-core": lambda shape, r: lokr_shapes("whole", "core", shape, r),
    "lokr-product-whole": lambda shape, r: lokr_shapes("product", "whole", shape, r),
    "lokr-product-product": lambda shape, r: lokr_shapes("product", "product", shape, r),
    "lokr-product-core": lambda shape, r: lokr_shapes("product", "core", shape, r),
}
CORES = {"lora-mid", "loha-core", "lokr-whole-core", "lokr-product-core"}  # those of convolutions with a kernel


def parts_of(kind: str, shape: torch.Size, rank: int = 2, alpha: float = 3.0, seed: int = 0) -> dict[str, Tensor]:
    """What a file holds for a layer: random, by part."""
    generator = torch.Generator().manual_seed(seed)
    sizes = SHAPES[kind](shape, rank)
    return {part: 0.3 * torch.randn(size, generator=generator) for part, size in sizes.items()} | {
        "alpha": torch.tensor(alpha)
    }
