"""Gradient checkpointing of the blocks of a network.

Blocks are known by the names of their classes in ComfyUI's networks, so that nothing of ComfyUI is needed here.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = {
    "BasicTransformerBlock",  # UNets: SD 1.x, 2.x, SDXL
    "ResBlock",
    "JointBlock",  # SD3
    "DoubleStreamBlock",  # Flux
    "SingleStreamBlock",
    "JointTransformerBlock",  # Lumina 2
}


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """The blocks of a network. Raises ValueError where there is none: nothing would then be as asked for."""
    found = [module for module in net.modules() if type(module).__name__ in BLOCKS]
    if not found:
        raise ValueError(f"{type(net).__name__} has none of the blocks that are known: {', '.join(sorted(BLOCKS))}")
    return found


class Checkpointed:
    """The forward of a block that keeps nothing but its inputs for the backward pass, which computes it once more.

    Without gradient it is the block's own: the teacher and the target cost nothing more.
    """

    def __init__(self, block: nn.Module):
        self.own = block.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.own(*args, **kwargs)
        return checkpoint(self.own, *args, use_reentrant=False, **kwargs)


def checkpoint_blocks(net: nn.Module) -> int:
    """Checkpoint each block of `net`; returns how many there are. Raises ValueError for a network without any.

    A LoRA on the network must be as it was in the forward pass when the backward pass computes the block again.
    """
    blocks = blocks_of(net)
    for block in blocks:
        if not isinstance(block.forward, Checkpointed):
            block.forward = Checkpointed(block)
    return len(blocks)
