"""The adapter beside a network: its layers, their hooks, and what merges it into the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .names import kohya_name
from .parametrisations import Layer, LoraLayer, Parametrisation


class Lora(nn.Module):
    """An adapter of one network: its layers by module name, and whether they are switched on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()  # kohya name -> Parametrisation: a module name must not hold dots
        self.names: dict[str, str] = {}  # kohya name -> module name
        self.skipped: tuple[str, ...] = ()  # modules of its file that belong to a text encoder
        self.on = True
        self._hooks: list[RemovableHandle] = []

    @property
    def paths(self) -> dict[str, Parametrisation]:
        """The layers' paths by kohya name."""
        return {key: path for key, path in self.layers.items() if isinstance(path, Parametrisation)}

    def add(self, name: str, path: Parametrisation) -> None:
        """Take up the path of the layer `name`. Raises ValueError if there is one of the same kohya name."""
        key = kohya_name(name)
        if key in self.names:
            raise ValueError(f"{self.names[key]} and {name} have the same name in a LoRA file: {key}")
        self.layers[key] = path
        self.names[key] = name

    def hook(self, layer: Layer, path: Parametrisation) -> None:
        """Add `path` to what `layer` computes."""

        def add(layer: Layer, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return out + path.path(layer, args[0]) if self.on else out

        self._hooks.append(layer.register_forward_hook(add))

    def remove(self) -> None:
        """Take the adapter off: the network computes what it did before."""
        while self._hooks:
            self._hooks.pop().remove()


def adaptable(net: nn.Module) -> dict[str, Layer]:
    """Linear and ungrouped Conv2d layers of `net` by name."""
    kinds = (nn.Linear, nn.Conv2d)
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, kinds) and getattr(module, "groups", 1) == 1
    }


def pairs(net: nn.Module, adapter: Lora) -> list[tuple[Layer, Parametrisation]]:
    """Each layer that `adapter` adapts with its path. Raises ValueError unless `net` has all of them, of that shape."""
    layers, found = adaptable(net), []
    for key, path in adapter.paths.items():
        name = adapter.names[key]
        if name not in layers:
            raise ValueError(f"{name} is no Linear and no ungrouped Conv2d layer of this network")
        if (shape := layers[name].weight.shape) != path.shape:
            raise ValueError(f"{name} has a weight of shape {tuple(shape)}, the adapter one of {tuple(path.shape)}")
        found.append((layers[name], path))
    return found


def attach(net: nn.Module, adapter: Lora) -> None:
    """Put the adapter on `net`, and off whatever it was on; its parameters move to the layers' devices.

    Raises ValueError unless every layer fits; nothing has then changed.
    """
    found = pairs(net, adapter)
    adapter.remove()
    for layer, path in found:
        adapter.hook(layer, path.to(layer.weight.device))


def inject(
    net: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    want: Callable[[str], bool] = lambda name: True,
) -> Lora:
    """Adapt every Linear and Conv2d layer of `net` whose name `want` accepts; returns the adapter to train.

    `alpha` defaults to the rank (scale 1). The parameters are float32 on each layer's device. Raises ValueError for
    rank < 1, when no layer is wanted, or for two layers that have the same name in a LoRA file.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    adapter = Lora()
    for name, layer in adaptable(net).items():
        if want(name):
            adapter.add(name, LoraLayer(layer, rank, alpha))
    if not adapter.layers:
        raise ValueError("no Linear or Conv2d layer of this network is wanted: nothing to adapt")
    attach(net, adapter)
    return adapter


@contextmanager
def toggle(adapter: Lora, on: bool) -> Iterator[None]:
    """Switch the adapter on or off within the `with`; off, the network is bit for bit what it was."""
    before, adapter.on = adapter.on, on
    try:
        yield
    finally:
        adapter.on = before


@torch.no_grad()
def merge(net: nn.Module, adapter: Lora, scale: float = 1.0) -> None:
    """Add the adapter into the weights of `net`, once, and take it off.

    Raises ValueError unless every layer fits; nothing has then changed.
    """
    found = pairs(net, adapter)
    adapter.remove()
    for layer, path in found:
        layer.weight += (scale * path.delta()).to(layer.weight)
