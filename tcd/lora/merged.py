"""A layer and its LoRA as one product, of W + scale up down: a sum of two weights instead of one of two outputs.

The merged weight is made anew each time, also for the backward pass, rather than kept.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from .parametrisations import Layer, LoRA, Parametrisation, apply


def rows(x: Tensor, layer: Layer) -> Tensor:
    """What a layer takes or gives, as [places, channels]."""
    return (x if isinstance(layer, nn.Linear) else x.movedim(1, -1)).flatten(0, -2)


def fits(layer: Layer, path: Parametrisation, x: Tensor) -> bool:
    """Whether one product is exact, as in the LoRA's own precision, and cheaper than three on this input."""
    if not isinstance(path, LoRA) or path.mid is not None or path.drops or layer.weight.requires_grad:
        return False
    if not x.dtype == layer.weight.dtype == path.down.dtype:
        return False
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return False  # the gradients of convolutions are told padding by numbers
    o, i = layer.weight.flatten(1).shape
    places = x.numel() // layer.weight.shape[1]
    return places * (o + i) > o * i


def merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + scale up down, in the memory format of W."""
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    own, inner = (each.movedim(1, -1) if last else each for each in (weight, down))
    made = torch.addmm(own.flatten(1), up.flatten(1), inner.flatten(1), alpha=scale).view(own.shape)
    return made.movedim(-1, 1) if last else made


class Merged(Function):
    """Its backward pass has the layer's own product for the input's gradient, and thin ones for the factors'."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, layer: Layer, scale: float) -> Tensor:
        ctx.save_for_backward(x, down, up)
        ctx.layer, ctx.scale = layer, scale
        return apply(layer, x, merged(layer.weight, down, up, scale), layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, down, up = ctx.saved_tensors
        layer: Layer = ctx.layer
        of_out, scaled = rows(grad, layer), up.flatten(1) * ctx.scale
        of_inner, inner = of_out @ scaled, rows(apply(layer, x, down), layer) * ctx.scale
        of_up = (of_out.T @ inner).view(up.shape)
        weight = merged(layer.weight, down, up, ctx.scale) if ctx.needs_input_grad[0] else None
        if isinstance(layer, nn.Linear):
            of_x = None if weight is None else grad @ weight
            return of_x, of_inner.T @ rows(x, layer), of_up, None, None
        how: Any = (layer.stride, layer.padding, layer.dilation)
        of_x = None if weight is None else conv2d_input(x.shape, weight, grad, *how)
        of_inner = of_inner.unflatten(0, (len(grad), *grad.shape[2:])).movedim(-1, 1)
        return of_x, conv2d_weight(x, down.shape, of_inner, *how), of_up, None, None


def compute(layer: Layer, path: Parametrisation, x: Tensor) -> Tensor:
    """What `layer` gives with `path` for the input `x`. Only where it `fits`."""
    return Merged.apply(x, path.down, path.up, layer, path.scale)
