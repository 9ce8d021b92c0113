"""What the backward pass computes once more instead of keeping it: what norms and activations give.

Autograd keeps the input of each operation, also of a frozen layer. Of norm, activation and layer in a row that is three
tensors of one size, of which the first tells the others for a hundredth of what the layer takes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

CHEAP = (nn.GroupNorm, nn.LayerNorm, nn.SiLU, nn.GELU)  # modules of one tensor, without randomness
Make = Callable[[], Tensor]


class Again:
    """A tensor that can be made again; once made it stays until the last that was promised it has asked for it."""

    def __init__(self, compute: Make, version: int):
        self.compute, self.version = compute, version
        self.due, self.made = 0, None

    def make(self) -> Tensor:
        found = self.compute() if self.made is None else self.made
        self.made = found if self.due > 0 else None
        return found

    def take(self) -> Tensor:
        """One that was promised it asks."""
        self.due -= 1
        return self.make()


def again(tensor: Tensor) -> Again | None:
    """How a tensor, or what it is a view of, is made again. None for others, and for one that was written to since."""
    found = getattr(whole(tensor), "made_again", None)
    return found if found and found.version == tensor._version else None


def whole(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base


def like(view: Tensor, make: Make) -> Make:
    """Makes `view` out of the tensor that it is a view of."""
    if view._base is None:
        return make
    size, stride, offset = view.size(), view.stride(), view.storage_offset()
    return lambda: make().as_strided(size, stride, offset)


def kept(tensor: Tensor) -> Make:
    """Gives the tensor itself. Raises RuntimeError if it was written to meanwhile, as autograd does."""
    tensor, version = tensor.detach(), tensor._version

    def give() -> Tensor:
        if tensor._version != version:
            raise RuntimeError("a tensor that the backward pass needs was modified in place")
        return tensor

    return give


def promised(tensor: Tensor) -> Make:
    """What autograd keeps instead of a tensor."""
    found = again(tensor)
    if found is None:
        return kept(tensor)
    found.due += 1
    return like(tensor, found.take)


def source(tensor: Tensor) -> Make:
    """What another tensor is made of."""
    found = again(tensor)
    return like(tensor, found.make) if found else kept(tensor)


def mark(tensor: Tensor, compute: Make) -> Tensor:
    """Let `tensor` be made again by `compute` where autograd would keep it."""
    tensor.made_again = Again(compute, tensor._version)  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


def mark_output(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
    """A hook for modules of one tensor."""
    if output.requires_grad and args:
        of = source(args[0])
        mark(output, lambda: module.forward(of()))


class Gated:
    """The forward of a GEGLU, with both of its products made again."""

    def __init__(self, layer: nn.Module):
        self.proj: Any = layer.proj

    def __call__(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        active = F.gelu(gate)
        if not active.requires_grad:
            return x * active
        of_gate, of_x = kept(gate), kept(x)
        of_active = source(mark(active, lambda: F.gelu(of_gate())))
        return mark(x * active, lambda: of_x() * of_active())


def prepare(net: nn.Module) -> None:
    """Mark what the norms and activations of `net` give, from now on."""
    for module in net.modules():
        if isinstance(module, CHEAP):
            module.register_forward_hook(mark_output)
        elif type(module).__name__ == "GEGLU":  # of ComfyUI's UNets: gate and product are no modules
            module.forward = Gated(module)


def keeping_less() -> AbstractContextManager:
    """Within the `with` what is marked is not kept for the backward pass."""
    return saved_tensors_hooks(promised, lambda make: make())
