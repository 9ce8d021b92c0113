"""A LoRA out of two networks: the low-rank part of what one has that the other has not."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .adapter import Lora, adaptable
from .parametrisations import LoRA

Weights = nn.Module | Mapping[str, Tensor]


class Extracted(Lora):
    """An adapter that was taken from a difference of weights, and how much of it it holds.

    `energies` is, by layer, what was kept and what there was of the squared Frobenius norm. `others` names the tensors
    that differ too, but that no LoRA can hold, such as biases and norms, or that were not wanted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.energies: dict[str, tuple[float, float]] = {}
        self.others: tuple[str, ...] = ()

    @property
    def kept(self) -> dict[str, float]:
        """The part of each layer's difference that was kept, in [0, 1]: relative energy, the squared norm."""
        return {name: kept / whole for name, (kept, whole) in self.energies.items()}

    @property
    def kept_in_all(self) -> float:
        """The part of all layers' difference together that was kept."""
        kept, whole = map(sum, zip(*self.energies.values(), strict=True))
        return kept / whole


def tensors(source: Weights) -> dict[str, Tensor]:
    return dict(source.state_dict() if isinstance(source, nn.Module) else source)


def layer_names(tuned: Weights, base: Weights) -> list[str]:
    """Layers of the networks; of state dicts alone all that have a `weight` of two or four dimensions."""
    nets = [source for source in (base, tuned) if isinstance(source, nn.Module)]
    if nets:
        return list(dict.fromkeys(name for net in nets for name in adaptable(net)))
    states = [tensors(source) for source in (base, tuned)]
    weights = (key for state in states for key, tensor in state.items() if tensor.ndim in (2, 4))
    return list(dict.fromkeys(key.removesuffix(".weight") for key in weights if key.endswith(".weight")))


def difference(name: str, tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Tensor:
    """tuned - base of a layer's weight, in float32. Raises ValueError unless both have it, finite and of one shape."""
    key = f"{name}.weight"
    for which, state in (("tuned", tuned), ("base", base)):
        if key not in state:
            raise ValueError(f"layer {name} is missing in {which}")
    if tuned[key].shape != base[key].shape:
        raise ValueError(f"layer {name}: tuned has shape {tuple(tuned[key].shape)}, base {tuple(base[key].shape)}")
    delta = tuned[key].to(base[key].device, torch.float32) - base[key].float()
    if not delta.isfinite().all():
        raise ValueError(f"layer {name}: the difference of the weights is not finite")
    return delta


def low_rank(delta: Tensor, rank: int) -> tuple[LoRA, tuple[float, float]]:
    """(the nearest LoRA of at most this rank, the squared Frobenius norms of it and of `delta`), [o, i, *k]."""
    u, s, v = torch.linalg.svd(delta.flatten(1), full_matrices=False)
    kept = s[:rank]
    # Half of each singular value to either side, so that both have values that float16 holds well
    up, down = u[:, :rank] * kept.sqrt(), kept.sqrt()[:, None] * v[:rank]
    factors = {"up": up.reshape(*up.shape, *[1] * (delta.ndim - 2)), "down": down.reshape(-1, *delta.shape[1:])}
    squares = s.double().square()
    return LoRA(delta.shape, factors), (squares[:rank].sum().item(), squares.sum().item())


def others(held: Mapping[str, str], tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Keys of tensors that differ, or that only one has, and that belong to no layer's weight in `held`."""
    weights = {f"{name}.weight" for name in held.values()}

    def same(key: str) -> bool:
        return key in tuned and key in base and torch.equal(tuned[key].to(base[key]), base[key])

    return tuple(key for key in dict.fromkeys([*base, *tuned]) if key not in weights and not same(key))


@torch.no_grad()
def extract(tuned: Weights, base: Weights, rank: int, want: Callable[[str], bool] = lambda name: True) -> Extracted:
    """The LoRA that makes `tuned` out of `base`, as near as `rank` allows: a truncated SVD of each layer's difference.

    `tuned` and `base` are networks of one architecture or their state dicts: then every `weight` of two or four
    dimensions counts as a layer, and `want`, of its name, has to leave out embeddings and grouped convolutions. Layers
    without a difference are left out. The adapter is on nothing: `save` it, or `attach` it to `base`. Its `kept` and
    `kept_in_all` tell how much of the difference it holds, its `others` what no LoRA can.

    Raises ValueError for rank < 1, for a layer that one of them lacks or that has another shape there, for a difference
    that is not finite, and when there is none.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    theirs, ours, adapter = tensors(tuned), tensors(base), Extracted()
    for name in filter(want, layer_names(tuned, base)):
        delta = difference(name, theirs, ours)
        if delta.any():
            path, adapter.energies[name] = low_rank(delta, rank)
            adapter.add(name, path)
    if not adapter.layers:
        raise ValueError("no wanted layer differs between the networks: nothing to extract")
    adapter.others = others(adapter.names, theirs, ours)
    return adapter
