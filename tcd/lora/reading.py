"""A LoRA file of any of the known tools, put on a network: its keys sorted by layer, all of them or none."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from . import peft
from .adapter import Lora, adaptable, attach
from .files import read
from .kinds import layer_from
from .names import EXTRA, find, index, is_peft, is_text_encoder, split
from .parametrisations import length

Parts = dict[str, Tensor]  # part -> tensor, as kohya and LyCORIS call the parts


def by_module(state: Mapping[str, Tensor]) -> dict[str, Parts]:
    """The tensors of a file by its own name of the module. Raises ValueError for keys of no LoRA, or for the same."""
    found: dict[str, Parts] = {}
    for key in sorted(state):
        module, part = split(key)
        if part in found.setdefault(module, {}):
            raise ValueError(f"{key} is there twice, once with another spelling: one file, one adapter")
        found[module][part] = state[key]
    return found


def modules_of(state: Mapping[str, Tensor], path: str | os.PathLike, metadata: dict[str, str]) -> dict[str, Parts]:
    """The tensors of the LoRA file `path` by its own name of the module, those of PEFT with the alpha of its settings.

    Raises ValueError for keys of no LoRA, for two spellings of one, and for settings of no use.
    """
    modules, settings = by_module(state), dict[tuple[str, ...], dict]()
    for module in sorted({split(key)[0] for key in state if is_peft(key)}):
        parts, net = modules[module], module.partition(".")[0]
        if "alpha" in parts or "lora_down.weight" not in parts:
            continue
        nets = (net,) if net.startswith("text_encoder") else peft.NETS
        if nets not in settings:
            settings[nets] = peft.settings(path, metadata, nets)
        alpha = peft.alpha_of(settings[nets], module, length(parts["lora_down.weight"], 0))
        parts["alpha"] = torch.tensor(alpha, dtype=torch.float64)
    return modules


def sort_modules(modules: Mapping[str, Parts], net: nn.Module) -> tuple[dict[str, str], tuple[str, ...]]:
    """({layer of `net` -> module of the file}, modules of a text encoder).

    Raises ValueError for a module that is neither, for two modules of one layer, and where no layer is adapted.
    """
    known = index([name for name, _ in net.named_modules()], adaptable(net))
    found, skipped, strangers = dict[str, str](), [], []
    for module in modules:
        if (name := find(module, known)) is None:
            (skipped if is_text_encoder(module) else strangers).append(module)
        elif name in found:
            raise ValueError(f"{found[name]} and {module} are the same layer of this network, {name}")
        else:
            found[name] = module
    if strangers:
        raise ValueError(f"{len(strangers)} of {len(modules)} modules are not in this network: {strangers[:3]}")
    if not found:
        raise ValueError(f"holds {'a text encoder alone' if skipped else 'no LoRA keys'}: nothing for this network")
    return found, tuple(skipped)


def assemble(modules: Mapping[str, Parts], net: nn.Module) -> Lora:
    """The adapter of a file's modules, on nothing yet. Raises ValueError unless every one fits `net`."""
    found, skipped = sort_modules(modules, net)
    layers, adapter = adaptable(net), Lora()
    for name, module in sorted(found.items()):
        try:
            adapter.add(name, layer_from(modules[module], layers[name]))
        except ValueError as error:
            raise ValueError(f"{module}: {error}") from error
    adapter.skipped = skipped
    return adapter


def load(path: str | os.PathLike, net: nn.Module) -> Lora:
    """Attach a LoRA file to `net`: of kohya, LyCORIS, PEFT or diffusers, told by its keys.

    Modules go by the network's own names, and by diffusers' where `net` is a UNet of LDM's naming (ComfyUI's). A layer
    is a LoRA, with or without a Tucker-decomposed kernel, a LoHa or a LoKr. PEFT's alpha is taken from the metadata, or
    from `adapter_config.json` beside the file; without any alpha the scale is 1. A text encoder's modules are not
    loaded: `skipped` of the adapter names them. Tensors whose keys begin with one of EXTRA are in its `extra`.

    Raises FileNotFoundError, or ValueError unless every key of the file fits; `net` is then as it was.
    """
    state, metadata = read(path)
    extra = {key: state.pop(key) for key in sorted(state) if key.startswith(EXTRA)}
    try:
        adapter = assemble(modules_of(state, path, metadata), net)
        adapter.extra = extra
        attach(net, adapter)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return adapter
