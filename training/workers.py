"""Many processes that train one model, started by torchrun on one machine or on several.

Each makes the gradients of its own samples; their mean is taken before every step, so all keep the same weights.
A process that was started without torchrun is alone: every method then leaves all as it is.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 64 * 2**20  # bytes of tensors that travel together: enough to fill a wire, little beside the network
# Where one process fails, torchrun ends all of them. These limits are for one that hangs or whose machine is gone.
STEP = timedelta(minutes=30)  # for what a step exchanges: process 0 may be drawing samples or saving meanwhile
WAIT = timedelta(days=1)  # for a barrier: process 0 may be encoding all pictures meanwhile


class ElsewhereError(RuntimeError):
    """Another process failed, and says why itself too; or it is gone, or hangs."""


@contextmanager
def reaching() -> Iterator[None]:
    """Within the `with` all processes have to be there. Raises ElsewhereError where one is not."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        advice = "start all of them again, with --resume auto to go on from the last saved state"
        raise ElsewhereError(f"another process is gone or hangs: {advice} ({error})") from error


def buckets(tensors: Iterable[Tensor], most: int = BUCKET) -> Iterator[list[Tensor]]:
    """The tensors in order, as lists of one dtype and of `most` bytes at most; a larger tensor is alone.

    >>> [len(bucket) for bucket in buckets([torch.zeros(2), torch.zeros(3), torch.zeros(9), torch.zeros(1)], most=20)]
    [2, 1, 1]
    """
    bucket, size = list[Tensor](), 0
    for tensor in tensors:
        if bucket and (size + tensor.nbytes > most or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def own_device() -> torch.device:
    """This process's GPU, by LOCAL_RANK, which becomes the current one; the CPU where there is no GPU.

    Raises ValueError where there are more processes than GPUs.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local >= (there := torch.cuda.device_count()):
        raise ValueError(f"nproc_per_node must be at most {there}, the GPUs of this machine; got process {local + 1}")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@dataclass(frozen=True)
class Workers:
    """This process among all: number `rank` of `world`, which computes on `device`."""

    device: torch.device
    rank: int = 0
    world: int = 1
    waiting: Any = None  # the process group of barriers: on the CPU, and patient

    @classmethod
    def start(cls) -> "Workers":
        """As torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK) says; returns when all processes are there.

        Call it before ComfyUI is loaded, which takes the current GPU for its own. Raises ValueError where there are
        more processes than GPUs.
        """
        world, device = int(os.environ.get("WORLD_SIZE", "1")), own_device()
        if world == 1:
            return cls(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=STEP)
        made = cls(device, dist.get_rank(), world, dist.new_group(backend="gloo", timeout=WAIT))
        made.mean(0)  # so that a network which does not work is found now, and not at the first step
        return made

    @property
    def main(self) -> bool:
        """Whether this is the process that writes the files and speaks."""
        return self.rank == 0

    def stop(self) -> None:
        """Leaves the others, at the end of all work."""
        if self.world > 1:
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.world > 1:
            with reaching():
                dist.barrier(self.waiting)

    @contextmanager
    def first(self) -> Iterator[None]:
        """Process 0 does the block before the others do, for example to fill a cache that they then find.

        If it fails there, the others raise ElsewhereError with its message instead of doing the block.
        """
        if not self.main:
            if failure := self.word():
                raise ElsewhereError(f"process 0 failed: {failure}")
            yield
            return
        failure = ""
        try:
            yield
        except BaseException as error:
            failure = repr(error)
            raise
        finally:
            self.word(failure)

    def word(self, text: str = "") -> str:
        """Process 0's text, in all processes."""
        said = [text]
        if self.world > 1:
            with reaching():
                dist.broadcast_object_list(said, group=self.waiting)
        return said[0]

    def mean(self, number: float) -> float:
        """The mean of all processes' numbers, in all of them."""
        return self.total(torch.tensor(number, dtype=torch.float64, device=self.device)).item() / self.world

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        if self.world > 1:
            with reaching():
                dist.all_reduce(tensor)
        return tensor

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Each gradient becomes the mean of all processes' ones. Where none has one it stays None; else None is zeros.

        Call it once a step: after the last `backward` of the accumulated batches, before the gradients are clipped.
        """
        weights = list(parameters)
        given = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=self.device)
        gradients = []
        for weight, processes in zip(weights, self.total(given).tolist(), strict=True):
            if processes:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradients.append(weight.grad)
        self.exchange(gradients, lambda flat: self.total(flat).div_(self.world))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor gets the values that it has in process 0."""
        with reaching():
            self.exchange(tensors, lambda flat: dist.broadcast(flat, 0))

    @torch.no_grad()
    def exchange(self, tensors: Iterable[Tensor], change: Callable[[Tensor], object]) -> None:
        """Lets `change` work, in place, on the tensors' values: one flat tensor for each bucket."""
        for bucket in buckets(tensors) if self.world > 1 else ():
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            change(flat)
            for tensor, values in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(values.view(tensor.shape))
