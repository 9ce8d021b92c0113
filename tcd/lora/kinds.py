"""Which parametrisation a file's tensors of one layer are. A new one is a class and a line of PARAMETRISATIONS."""

import math
from collections.abc import Mapping

from torch import Tensor

from .lycoris import LoHa, LoKr
from .parametrisations import Layer, LoRA, Parametrisation, Shape

PARAMETRISATIONS: dict[str, type[Parametrisation]] = {"LoRA": LoRA, "LoHa": LoHa, "LoKr": LoKr}
REFUSED = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft": "OFT or BOFT",
    "boft": "BOFT",
    "a1.": "GLoRA",
    "a2.": "GLoRA",
    "b1.": "GLoRA",
    "b2.": "GLoRA",
}  # how a part begins -> the parametrisation that has it


def choose(parts: Mapping[str, Tensor]) -> type[Parametrisation]:
    """The parametrisation that is made of `parts`. Raises ValueError if there is none."""
    for part in parts:
        if refused := next((name for start, name in REFUSED.items() if part.startswith(start)), None):
            raise ValueError(f"has {part}: {refused} is not supported, only {', '.join(PARAMETRISATIONS)}")
    for kind in PARAMETRISATIONS.values():
        if any({kind.PARTS[name] for name in names} == parts.keys() for names in kind.SETS):
            return kind
    known = "; ".join(f"{name} {', '.join(kind.PARTS.values())}" for name, kind in PARAMETRISATIONS.items())
    raise ValueError(f"has {sorted(parts)}, which make no whole layer of {known}")


def number(alpha: Tensor) -> float:
    """Raises ValueError unless `alpha` is one finite number."""
    if alpha.numel() != 1:
        raise ValueError(f"alpha must be one finite number, got a tensor of shape {tuple(alpha.shape)}")
    if not math.isfinite(alpha.item()):
        raise ValueError(f"alpha must be one finite number, got {alpha.item()}")
    return float(alpha.item())


def layer_from(parts: Mapping[str, Tensor], layer: Layer) -> Parametrisation:
    """The path of a file's tensors for one layer, by kohya's or LyCORIS' names. Raises ValueError unless they fit."""
    return path_from(parts, layer.weight.shape)


def path_from(parts: Mapping[str, Tensor], shape: Shape) -> Parametrisation:
    """The same for a weight of this shape, [o, i, *k]."""
    factors = {part: tensor for part, tensor in parts.items() if part != "alpha"}
    kind = choose(factors)
    if odd := [part for part, factor in factors.items() if not factor.is_floating_point()]:
        raise ValueError(f"{odd[0]} has {factors[odd[0]].dtype}, not a floating-point type")
    named = {name: factors[part] for name, part in kind.PARTS.items() if part in factors}
    path = kind(shape, named, number(parts["alpha"]) if "alpha" in parts else None)
    path.check()
    return path
