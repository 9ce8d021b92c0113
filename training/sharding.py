"""A student that is shared out over all processes (PyTorch's FSDP): each holds a part of every weight.

A block's weights are put together while it computes. What is saved is whole, and the same as without. PyTorch's modules
for it are imported where they are needed, as that takes a second.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpointing import blocks_of
from .optim.optimizers import class_of
from .options import Options
from .workers import Workers

if TYPE_CHECKING:
    from .network import Parts

Groups = list[list[int]]


def check(opts: Options, workers: Workers) -> None:
    """Raises ValueError for what cannot be done with a student in parts."""
    if not opts.fsdp:
        return
    if workers.world == 1:
        command = "torchrun --nproc_per_node=2 -m training.train"
        raise ValueError(f"fsdp shards the student over several processes, this one is alone: start them by {command}")
    if opts.mixed_precision == "fp16":
        raise ValueError("fsdp is for mixed_precision bf16 or no: the scaler of fp16 would see a part of the gradients")
    if not class_of(opts.optimizer_type).__module__.startswith("torch.optim"):
        raise ValueError(
            f"fsdp is for optimizers of torch.optim, which know weights in parts; got {opts.optimizer_type}"
        )
    if not hasattr(import_module("torch.distributed.fsdp"), "fully_shard"):
        raise ValueError(f"fsdp needs PyTorch 2.6 or later, this is {torch.__version__}")


def shard(parts: Parts, workers: Workers) -> None:
    """Leave each process its part of what is trained, on its device: block by block, then the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(workers.device.type, (workers.world,))
    for module in [*blocks_of(parts.student_net.unet), *parts.trained.values()]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)  # a running average may come in between
    parts.student_net.together = agreeing(parts.student_net.together, workers)


def agreeing(together: Callable[..., Groups], workers: Workers) -> Callable[..., Groups]:
    """`together` with as many groups in every process, as all take part in every call of the network."""

    def agreed(inputs: list) -> Groups:
        groups = together(inputs)
        return groups if workers.mean(len(groups)) == 1 else [[i] for i in range(len(inputs))]

    return agreed


def is_shared(value: Any) -> bool:
    return hasattr(value, "full_tensor")


def whole(value: Any, keep: bool = True) -> Any:
    """A tensor put together from the processes' parts, on the CPU; lists and dicts of them; anything else as it is.

    All processes have to call it; those that do not `keep` the whole get None in its place.
    """
    if isinstance(value, dict):
        return {name: whole(one, keep) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one, keep) for one in value]
    if not is_shared(value):
        return value
    full = value.full_tensor()
    return full.cpu() if keep else None


def shared_like(own: Any, value: Any) -> Any:
    """A whole tensor shared out as `own` of its shape is; anything else as it is."""
    if not (is_shared(own) and isinstance(value, Tensor) and value.shape == own.shape):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def exchange(own: Tensor, other: Tensor) -> None:
    """Let the values of two tensors change places, where FSDP holds on to the storages."""
    one, two = own.detach().to_local(), other.to_local()  # pyright: ignore[reportAttributeAccessIssue]
    kept = one.clone()
    one.copy_(two)
    two.copy_(kept)
