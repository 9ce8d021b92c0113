"""A new adapter to train, and what training does to one besides its gradients."""

from collections.abc import Callable

import torch
from torch import nn

from .adapter import Lora, adaptable, attach
from .dropout import Dropout
from .parametrisations import Layer, LoRA


def sizes(
    layer: Layer, rank: int, alpha: float | None, conv_rank: int | None, conv_alpha: float | None
) -> tuple[int, float | None]:
    """(rank, alpha) for one layer."""
    if isinstance(layer, nn.Linear) or max(layer.kernel_size) == 1:
        return rank, alpha
    return rank if conv_rank is None else conv_rank, alpha if conv_alpha is None else conv_alpha


def inject(
    net: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    want: Callable[[str], bool] = lambda name: True,
    *,
    conv_rank: int | None = None,
    conv_alpha: float | None = None,
    dropout: float = 0.0,
    rank_dropout: float = 0.0,
    module_dropout: float = 0.0,
) -> Lora:
    """Adapt every Linear and Conv2d layer of `net` whose name `want` accepts; returns the adapter to train.

    `alpha` defaults to the layer's rank (scale 1). Convolutions with a kernel of more than one pixel take `conv_rank`
    and `conv_alpha`: None is as the others, and with a `conv_rank` of 0 they get no LoRA. The parameters are float32 on
    each layer's device. `set_dropout` tells what the three dropouts are.

    Raises ValueError for rank < 1, conv_rank < 0 and probabilities out of range, when no layer is wanted, or for two
    layers that have the same name in a LoRA file.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if conv_rank is not None and conv_rank < 0:
        raise ValueError(f"conv_rank must be at least 0, got {conv_rank}")
    adapter = Lora()
    for name, layer in adaptable(net).items():
        own_rank, own_alpha = sizes(layer, rank, alpha, conv_rank, conv_alpha)
        if own_rank and want(name):
            adapter.add(name, LoRA.fresh(layer, own_rank, own_alpha))
    if not adapter.layers:
        raise ValueError("no Linear or Conv2d layer of this network is wanted: nothing to adapt")
    set_dropout(adapter, dropout, rank_dropout, module_dropout)
    attach(net, adapter)
    return adapter


def set_dropout(adapter: Lora, dropout: float = 0.0, rank_dropout: float = 0.0, module_dropout: float = 0.0) -> None:
    """Drop out in training, `adapter.train()`, but not after `adapter.eval()`, as kohya's networks do.

    `dropout` is the probability of each inner value of a LoRA, `rank_dropout` of each of its ranks for a whole sample,
    `module_dropout` of a layer's path. Raises ValueError for one out of [0, 1), and for other kinds than LoRA, which
    have no inner values.
    """
    drops = Dropout(dropout, rank_dropout, module_dropout)
    for key, path in adapter.paths.items():
        if (dropout or rank_dropout) and not (isinstance(path, LoRA) and path.mid is None):
            raise ValueError(f"{key} is {type(path).__name__} without inner values: only module_dropout is for it")
    for path in adapter.paths.values():
        path.dropout = drops


@torch.no_grad()
def scale_norms(adapter: Lora, max_norm: float) -> int:
    """Scale layers down whose weight difference has a Frobenius norm above `max_norm`; returns how many there were.

    Raises ValueError unless max_norm > 0, and for other kinds than LoRA.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, got {max_norm}")
    scaled = 0
    for key, path in adapter.paths.items():
        if not isinstance(path, LoRA):
            raise ValueError(f"{key} is {type(path).__name__}: only the norms of LoRA are scaled")
        norm = path.delta().norm().item()
        if norm > max_norm:
            factors = path.factors.values()
            for factor in factors:
                factor *= (max_norm / norm) ** (1 / len(factors))
            scaled += 1
    return scaled
