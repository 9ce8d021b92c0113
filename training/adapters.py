"""What is trained besides the network: the LoRA, as the options want it, and the embedding of s of TCF(S+)."""

import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

import tcd
from tcd import embed, lora

from .options import Options

# Which layers a LoRA adapts, by name: all; every one in a block, as LCM-LoRA does; those in and around attention.
TARGETS = {
    "all": r"",
    "blocks": r"(input_blocks\.(?!0\.)|(?<!input_)block|layers|refiner)",
    "attention": r"(transformer_blocks\.|\.proj_(in|out)$|attn|attention|single_blocks\.\d+\.linear)",
}


@dataclass(frozen=True)
class Arguments:
    """What `network_args` may say, as kohya's networks take it."""

    conv_dim: int = -1  # rank of convolutions with a kernel: -1 as network_dim, 0 none
    conv_alpha: float = 0.0  # 0: conv_dim
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    target: str = "all"
    include: str = ""
    exclude: str = ""


def arguments(opts: Options) -> Arguments:
    """`network_args`, checked. Raises ValueError that names the bad one and what is allowed."""
    kinds, found = {f.name: type(f.default) for f in fields(Arguments)}, dict[str, Any]()
    for item in opts.network_args:
        name, equals, text = item.partition("=")
        if not equals or name not in kinds:
            raise ValueError(f"network_args must be name=value with one of {', '.join(kinds)}; got {item!r}")
        try:
            found[name] = kinds[name](text)
        except ValueError:
            raise ValueError(f"network_args {name} must be of type {kinds[name].__name__}, got {text!r}") from None
    made = Arguments(**found)
    tcd.choose(TARGETS, "network_args target", made.target)
    for name in ("include", "exclude"):
        try:
            re.compile(getattr(made, name))
        except re.error as error:
            raise ValueError(
                f"network_args {name} must be a regular expression, got {getattr(made, name)!r}: {error}"
            ) from None
    for name in ("rank_dropout", "module_dropout"):
        if not 0 <= getattr(made, name) < 1:
            raise ValueError(f"network_args {name} must be in [0, 1), got {getattr(made, name)}")
    if made.conv_dim < -1 or not 0 <= made.conv_alpha < math.inf:
        got = f"{made.conv_dim}, {made.conv_alpha}"
        raise ValueError(f"network_args conv_dim and conv_alpha must be 0 at least, and finite, got {got}")
    return made


def wanted(name: str, chosen: Arguments) -> bool:
    """Whether the layer of this name is adapted."""
    if not re.search(TARGETS[chosen.target], name) or not re.search(chosen.include, name):
        return False
    return not (chosen.exclude and re.search(chosen.exclude, name))


def make(unet: nn.Module, opts: Options) -> lora.Lora:
    """The LoRA to train, on the network: new, or that of `network_weights`. Raises ValueError for what does not fit."""
    chosen = arguments(opts)
    drops = {
        "dropout": opts.network_dropout,
        "rank_dropout": chosen.rank_dropout,
        "module_dropout": chosen.module_dropout,
    }
    if opts.network_weights:
        if given := [item for item in opts.network_args if item.partition("=")[0] not in drops]:
            raise ValueError(
                f"network_args {given[0]} has no effect with network_weights, which has its layers and ranks"
            )
        return going_on(unet, opts, drops)
    conv_rank = opts.network_dim if chosen.conv_dim < 0 else chosen.conv_dim
    return lora.inject(
        unet,
        opts.network_dim,
        opts.alpha,
        lambda name: wanted(name, chosen),
        conv_rank=conv_rank,
        conv_alpha=chosen.conv_alpha or (opts.alpha if chosen.conv_dim < 0 else float(conv_rank)),
        **drops,
    )


def going_on(unet: nn.Module, opts: Options, drops: dict[str, float]) -> lora.Lora:
    """The LoRA of `network_weights`. Raises ValueError for one of other layers, rank or kind than a plain LoRA."""
    adapter = lora.load(Path(opts.network_weights), unet)
    ranks = {path.rank for path in adapter.paths.values()}
    if not all(type(path) is lora.LoRA for path in adapter.paths.values()):
        raise ValueError(f"network_weights {opts.network_weights} must hold LoRA alone, not LoHa or LoKr")
    if not opts.dim_from_weights and ranks != {opts.network_dim}:
        found = ", ".join(map(str, sorted(ranks)))
        raise ValueError(f"network_weights is of rank {found}, network_dim is {opts.network_dim}: add dim_from_weights")
    alphas = {path.alpha for path in adapter.paths.values()}
    if opts.network_alpha and alphas != {opts.network_alpha}:
        found = ", ".join(f"{alpha:g}" for alpha in sorted(alphas))
        raise ValueError(f"network_weights is of alpha {found}, network_alpha is {opts.network_alpha:g}: leave it out")
    lora.set_dropout(adapter, **drops)
    return adapter


def as_trained(opts: Options, adapter: lora.Lora | None) -> Options:
    """The options with the rank and alpha that the LoRA has, which may be those of `network_weights`: its largest."""
    if adapter is None or not opts.network_weights:
        return opts
    rank, alpha = max((path.rank, float(path.alpha)) for path in adapter.paths.values())
    return replace(opts, network_dim=rank, network_alpha=alpha)


def target_time(student: Any, adapter: lora.Lora | None) -> tcd.TargetTimeNet:
    """The embedding of s beside a UNet's embedding of t: that of `network_weights`, or a new one.

    Raises ValueError for a network that is no UNet.
    """
    of_t = getattr(student, "time_embed", None)
    if of_t is None:
        raise ValueError(f"TCF(S+) is for UNets (SD 1.x, 2.x, SDXL): {type(student).__name__} has no time_embed")
    of_s = embed.from_tensors(adapter.extra if adapter else {})
    return tcd.TargetTimeNet(student, of_s or tcd.TargetTime(of_t[-1].out_features, student.model_channels))
