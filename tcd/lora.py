"""Low-rank adaptation of a network in place: inject, switch, merge, save and load with kohya's key names.

The adapter lives beside the network: a forward hook of each adapted layer adds the low-rank path, so the network's
own state dict stays clean, and switched off it computes bit for bit what it did before. One network thus plays teacher
(off), student (on) and target (on, without gradient). Adapters stack, and come off in any order.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

PREFIX = "lora_unet_"


def kohya_name(name: str) -> str:
    """Key of a module in a LoRA file.

    >>> kohya_name("input_blocks.1.0.in_layers.2")
    'lora_unet_input_blocks_1_0_in_layers_2'
    """
    return PREFIX + name.replace(".", "_")


class LoraLayer(nn.Module):
    """The low-rank path of one Linear or Conv2d: up(down(x)) * alpha / rank. `up` starts at zero."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float):
        super().__init__()
        out = layer.weight.shape[0]
        point = (1, 1) if isinstance(layer, nn.Conv2d) else ()
        self.down = nn.Parameter(torch.empty(rank, *layer.weight.shape[1:]))
        self.up = nn.Parameter(torch.zeros(out, rank, *point))
        self.alpha = alpha
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @property
    def scale(self) -> float:
        return self.alpha / self.down.shape[0]

    def path(self, layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            inner = layer._conv_forward(x, down, None)  # the layer's stride, dilation and way of padding
            return F.conv2d(inner, up) * self.scale
        return F.linear(F.linear(x, down), up) * self.scale

    def delta(self) -> Tensor:
        """The dense weight difference that this path stands for, shape of the layer's weight."""
        down, up = self.down.flatten(1), self.up.flatten(1)
        return (up @ down).reshape(up.shape[0], *self.down.shape[1:]) * self.scale


class Lora(nn.Module):
    """An adapter of one network: its layers by module name, and whether they are switched on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()  # kohya name -> LoraLayer: a module name must not hold dots
        self.names: dict[str, str] = {}  # kohya name -> module name
        self.on = True
        self._hooks: list[RemovableHandle] = []

    @property
    def paths(self) -> dict[str, LoraLayer]:
        """The low-rank paths by kohya name."""
        return {key: path for key, path in self.layers.items() if isinstance(path, LoraLayer)}

    def attach(self, name: str, layer: nn.Linear | nn.Conv2d, path: LoraLayer) -> None:
        """Add `path` to what `layer` computes."""

        def add(layer: nn.Linear | nn.Conv2d, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return out + path.path(layer, args[0]) if self.on else out

        self.layers[kohya_name(name)] = path
        self.names[kohya_name(name)] = name
        self._hooks.append(layer.register_forward_hook(add))

    def remove(self) -> None:
        """Take the adapter off: the network computes what it did before."""
        while self._hooks:
            self._hooks.pop().remove()


def adaptable(net: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Linear and ungrouped Conv2d layers of `net` by name."""
    kinds = (nn.Linear, nn.Conv2d)
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, kinds) and getattr(module, "groups", 1) == 1
    }


def inject(
    net: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    want: Callable[[str], bool] = lambda name: True,
) -> Lora:
    """Adapt every Linear and Conv2d layer of `net` whose name `want` accepts; returns the adapter to train.

    `alpha` defaults to the rank (scale 1). The parameters are float32 on each layer's device. Raises ValueError for
    rank < 1 or when no layer is wanted.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    adapter = Lora()
    for name, layer in adaptable(net).items():
        if want(name):
            path = LoraLayer(layer, rank, rank if alpha is None else alpha)
            adapter.attach(name, layer, path.to(layer.weight.device))
    if not adapter.layers:
        raise ValueError("no Linear or Conv2d layer of this network is wanted: nothing to adapt")
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
    """Add the adapter into the weights of `net`, once, and take it off."""
    adapter.remove()
    layers = adaptable(net)
    for key, path in adapter.paths.items():
        weight = layers[adapter.names[key]].weight
        weight += (scale * path.delta()).to(weight)


def state_dict(adapter: Lora, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Kohya's keys: `<name>.lora_down.weight`, `<name>.lora_up.weight`, `<name>.alpha` (0-dim)."""
    state = {}
    for key, path in adapter.paths.items():
        state[f"{key}.lora_down.weight"] = path.down.detach().to("cpu", dtype).contiguous()
        state[f"{key}.lora_up.weight"] = path.up.detach().to("cpu", dtype).contiguous()
        state[f"{key}.alpha"] = torch.tensor(float(path.alpha), dtype=dtype)
    return state


def save(path: str | os.PathLike, adapter: Lora, metadata: dict[str, str] | None = None, dtype=torch.float16) -> None:
    """Save as kohya-format safetensors, atomically; `sshs_model_hash` is added to the metadata."""
    state, metadata = state_dict(adapter, dtype), dict(metadata or {})
    metadata["sshs_model_hash"] = hashlib.sha256(to_bytes(state)).hexdigest()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_bytes(to_bytes(state, metadata))
    scratch.replace(path)


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a LoRA file. Raises FileNotFoundError, or ValueError for a file that is no safetensors."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such LoRA file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except Exception as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


@torch.no_grad()
def layer_from(parts: dict[str, Tensor], layer: nn.Linear | nn.Conv2d) -> LoraLayer:
    """The low-rank path of a file's tensors for one layer, by their kohya suffix. Raises ValueError unless they fit."""
    if parts.keys() | {"alpha"} != {"lora_down.weight", "lora_up.weight", "alpha"}:
        raise ValueError(f"has {sorted(parts)}, not lora_down.weight, lora_up.weight and perhaps alpha")
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    rank = max(1, len(down) if down.ndim else 0)  # of nothing there is no path: the shapes tell
    path = LoraLayer(layer, rank, parts["alpha"].item() if "alpha" in parts else rank)
    got, wanted = ([tuple(a.shape), tuple(b.shape)] for a, b in ((down, up), (path.down, path.up)))
    if got != wanted:
        raise ValueError(f"has shapes {got}, this layer {wanted}")
    path.down.copy_(down)
    path.up.copy_(up)
    return path.to(layer.weight.device)


def load(path: str | os.PathLike, net: nn.Module) -> Lora:
    """Attach a kohya-format LoRA file to `net`.

    Raises FileNotFoundError, or ValueError unless every key of the file fits; `net` is then as it was.
    """
    state, _ = read(path)
    if not any(key.endswith(".lora_down.weight") for key in state):
        raise ValueError(f"{path} holds no kohya LoRA keys (...lora_down.weight)")
    found: dict[str, dict[str, Tensor]] = {}  # kohya name -> suffix -> tensor
    for key, tensor in state.items():
        module, _, suffix = key.partition(".")
        found.setdefault(module, {})[suffix] = tensor
    layers = {kohya_name(name): (name, layer) for name, layer in adaptable(net).items()}
    if strangers := sorted(found.keys() - layers.keys()):
        raise ValueError(f"{path}: {len(strangers)} of {len(found)} modules are not in this network: {strangers[:3]}")
    paths = {}
    for key, parts in found.items():
        try:
            paths[key] = layer_from(parts, layers[key][1])
        except ValueError as error:
            raise ValueError(f"{path}: {key} {error}") from error
    adapter = Lora()
    for key in sorted(paths):
        adapter.attach(*layers[key], paths[key])
    return adapter


def metadata_of(settings: dict) -> dict[str, str]:
    """Metadata as kohya writes it: every value a string, numbers and lists as JSON, None left out."""
    known = {key: value for key, value in settings.items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}
