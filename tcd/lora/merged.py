"""A layer and its LoRA in one operation: what takes less time and memory than two, where it is as exact.

The weight W + up @ down is made anew at each evaluation, and again for the gradient of the input; the layer's own is
not touched. Backward the factors get their gradient by the narrow path, never as a dense one of the weight.
"""

import math
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import grad as gradients

from .parametrisations import Layer, LoRA, Parametrisation, apply


def pays(path: Parametrisation, layer: Layer, x: Tensor) -> TypeGuard[LoRA]:
    """Whether there are so many inputs that merging is less work, and whether it is exact and has a gradient here.

    In half precision a weight would round away what the LoRA adds to it. Dropout is on the path alone.
    """
    if type(path) is not LoRA or path.mid is not None or path.drops or torch.compiler.is_compiling():
        return False
    conv = isinstance(layer, nn.Conv2d)
    if conv and (layer.padding_mode != "zeros" or isinstance(layer.padding, str) or x.ndim != 4):
        return False
    frozen = not any(parameter.requires_grad for parameter in layer.parameters())
    exact = layer.weight.dtype == x.dtype == path.down.dtype and not torch.is_autocast_enabled(x.device.type)
    o, *inputs = layer.weight.shape
    positions, width = x.numel() // inputs[0], math.prod(inputs)
    return frozen and exact and positions * (width + o) > o * width


def weight_of(layer: Layer, path: LoRA) -> Tensor:
    """W + up @ down, in the order in memory of W."""
    last = 1 if layer.weight.is_contiguous() else -1
    whole, down = (factor.movedim(1, last) for factor in (layer.weight, path.down))
    made = torch.addmm(whole.flatten(1), path.up.flatten(1), down.flatten(1), alpha=path.scale)
    return made.view(whole.shape).movedim(last, 1)


def geometry(layer: nn.Conv2d) -> tuple[Any, ...]:
    return layer.stride, layer.padding, layer.dilation


def input_gradient(layer: Layer, x: Tensor, weight: Tensor, slope: Tensor) -> Tensor:
    """Of a layer with this weight, where `slope` is the gradient of its output."""
    if isinstance(layer, nn.Linear):
        return slope @ weight
    return gradients.conv2d_input(x.shape, weight, slope, *geometry(layer))  # type: ignore[arg-type]


def weight_gradient(layer: Layer, x: Tensor, shape: torch.Size, slope: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return slope.T @ x
    return gradients.conv2d_weight(x, shape, slope, *geometry(layer))  # type: ignore[arg-type]


def factor_gradients(layer: Layer, path: LoRA, x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """(of down, of up); x and `slope` are the layer's."""
    down, up = path.down, path.up * path.scale
    inner = apply(layer, x, down)
    if isinstance(layer, nn.Linear):
        narrow, of_up = slope @ up, slope.T @ inner
    else:
        narrow, of_up = F.conv2d(slope, up.transpose(0, 1)), gradients.conv2d_weight(inner, up.shape, slope)
    return weight_gradient(layer, x, down.shape, narrow), path.scale * of_up


class Merged(torch.autograd.Function):
    """Keeps the input alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, layer: Layer, path: LoRA) -> Tensor:
        ctx.save_for_backward(x, down, up)
        ctx.layer, ctx.path = layer, path
        return apply(layer, x, weight_of(layer, path), layer.bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (x, *_), layer, path, (slope,) = ctx.saved_tensors, ctx.layer, ctx.path, slopes
        of_x = input_gradient(layer, x, weight_of(layer, path), slope) if ctx.needs_input_grad[0] else None
        return of_x, *factor_gradients(layer, path, x, slope), None, None


def forward(layer: Layer, path: LoRA, x: Tensor) -> Tensor:
    """What `layer` and its `path` compute together."""
    if isinstance(layer, nn.Conv2d):
        return Merged.apply(x, path.down, path.up, layer, path)
    # As rows: F.linear gives a view for other inputs, and what a Function gives as a view nobody may write to
    rows = Merged.apply(x.reshape(-1, x.shape[-1]), path.down, path.up, layer, path)
    return rows.view(*x.shape[:-1], -1)
