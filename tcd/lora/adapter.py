"""The adapter beside a network: its layers, how they compute with it, and what merges it into the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from . import merged
from .names import kohya_name
from .parametrisations import Layer, Parametrisation


class Lora(nn.Module):
    """An adapter of one network: its layers by module name, and whether they are switched on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()  # kohya name -> Parametrisation: a module name must not hold dots
        self.names: dict[str, str] = {}  # kohya name -> module name
        self.skipped: tuple[str, ...] = ()  # modules of its file that belong to a text encoder
        self.extra: dict[str, Tensor] = {}  # other tensors of its file, of EXTRA
        self.on = True
        self.merges = False  # compute layer and LoRA by one product: of layers that use their weight as it is
        self._on: list[Adapted] = []

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

    def put(self, layer: Layer, path: Parametrisation) -> None:
        """Add `path` to what `layer` computes."""
        adapted = layer.forward if isinstance(layer.forward, Adapted) else Adapted(layer)
        layer.__dict__["forward"] = adapted
        adapted.paths.append((self, path))
        self._on.append(adapted)

    def remove(self) -> None:
        """Take the adapter off: the network computes what it did before."""
        while self._on:
            self._on.pop().take_off(self)


class Adapted:
    """The forward of an adapted layer: its own, and the path of each adapter on it that is switched on."""

    def __init__(self, layer: Layer):
        self.layer, self.own = layer, layer.forward
        self.paths: list[tuple[Lora, Parametrisation]] = []

    def __call__(self, x: Tensor) -> Tensor:
        pairs = [(a, path) for a, path in self.paths if a.on and not (path.drops and path.dropout.skips())]
        if len(pairs) == 1 and pairs[0][0].merges and merged.fits(self.layer, pairs[0][1], x):
            return merged.compute(self.layer, pairs[0][1], x)
        return sum((path.path(self.layer, x) for _, path in pairs), self.own(x))

    def take_off(self, adapter: Lora) -> None:
        """Go back to the layer's own forward after the last one."""
        self.paths = [pair for pair in self.paths if pair[0] is not adapter]
        if not self.paths:
            del self.layer.forward


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
        adapter.put(layer, path.to(layer.weight.device))


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
