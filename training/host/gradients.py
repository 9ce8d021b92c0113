"""What ComfyUI's networks need to have a gradient: blocks that leave alone what they are given and what they keep."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

IN_PLACE = ("comfy.ldm.flux.layers", "comfy.ldm.chroma.layers")  # whose blocks add to their states in place


def copied(value: Any) -> Any:
    """A state [B, L, D] anew; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.ndim == 3 else value


class Copying(nn.Module):
    """Mixed into a block: it works on copies while gradients are recorded, so that it can be computed again."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        return super().forward(*map(copied, args), **{name: copied(value) for name, value in kwargs.items()})


@cache
def copying(kind: type[nn.Module]) -> type[nn.Module]:
    """A kind of block, under its own name, as one that works on copies."""
    return type(kind.__name__, (Copying, kind), {})


def copy_input(norm: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
    """A hook: the backward pass of a normalisation needs its input as it was, which its block then adds to."""
    return (copied(args[0]),) if args[0].requires_grad else None


def allow_gradients(net: nn.Module) -> None:
    """Make ComfyUI compute with operations that have a gradient, and the blocks of `net` that work in place fit for it.

    It takes no more memory than blocks would that add to their states as others do; what they compute stays the same.
    """
    import comfy.model_management

    # Later hosts have fused operations without gradient, and ask for this
    comfy.model_management.in_training = True  # pyright: ignore[reportAttributeAccessIssue]
    for block in list(net.modules()):
        if type(block).__module__ not in IN_PLACE:
            continue
        norms = [module for module in block.children() if isinstance(module, nn.LayerNorm)]
        for norm in norms:
            norm.register_forward_pre_hook(copy_input)
        if norms:
            block.__class__ = copying(type(block))
