"""Which weight of a model each module of a LoRA file is for, and whether it fits.

ComfyUI knows most names and makes the patches. What it has no name for is found by `tcd.lora`, which knows more of
them. Shapes are looked at here, since ComfyUI does so only while it samples.
"""

import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import comfy.lora
import comfy.lora_convert
import torch
from torch import Tensor

from .. import tcd

Parts = Mapping[str, Tensor]  # part -> tensor, as kohya and LyCORIS call the parts
Key = str | tuple  # of a weight; or (key, (axis, start, length), ...) for a slice of one, as Flux and SD3 have

KNOWN = {part for kind in tcd.lora.PARAMETRISATIONS.values() for part in kind.PARTS.values()} | {"alpha"}
CORES = {"lora_mid.weight", "hada_t1", "hada_t2", "lokr_t2"}  # parts that have the shape of a kernel
STRANGER = "is not in this model"


@dataclass
class Match:
    """What becomes of a file's modules."""

    fitting: dict[str, Key] = field(default_factory=dict)  # module -> the weight that it is for
    misfits: dict[str, str] = field(default_factory=dict)  # module -> why
    left_out: list[str] = field(default_factory=list)  # of a text encoder, where no CLIP is given
    patches: dict[Key, Any] = field(default_factory=dict)  # for ComfyUI's add_patches
    ranks: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        return len(self.fitting) + len(self.misfits) + len(self.left_out)


class Weights:
    """The weights of a model, and of a CLIP where one is given, by all names that files have for them."""

    def __init__(self, model, clip=None):
        self.net = model.model.diffusion_model
        self.names: dict[str, Key] = comfy.lora.model_lora_keys_unet(model.model, {})
        self.weights: dict[str, Tensor] = dict(model.model.state_dict())
        if clip is not None:
            comfy.lora.model_lora_keys_clip(clip.cond_stage_model, self.names)
            self.weights |= clip.cond_stage_model.state_dict()

    @cached_property
    def layers(self) -> dict[str, str]:
        """Name in a file, in kohya's form -> the network's layer."""
        return tcd.lora.index([name for name, _ in self.net.named_modules()], tcd.lora.adaptable(self.net))

    def find(self, module: str) -> Key | None:
        """The key of the weight that a file's module is for."""
        for name in tcd.lora.candidates(module):
            if name in self.names:
                return self.names[name]
        layer = tcd.lora.find(module, self.layers)
        return None if layer is None else f"diffusion_model.{layer}.weight"

    def shape(self, key: Key | None) -> tuple[int, ...]:
        """Of a weight, or of its slice. Raises ValueError for one that the model has not, though a name for it."""
        name, *part = (key,) if key is None or isinstance(key, str) else key
        if name not in self.weights:
            raise ValueError(STRANGER)
        shape = list(self.weights[name].shape)
        if part and part[0] is not None:
            axis, _, length = part[0]
            shape[axis] = length
        return tuple(shape)


def rank_of(parts: Parts, shape: tuple[int, ...]) -> int | None:
    """Rank of a LoRA, LoHa or LoKr for a weight of this shape; None for a kind that is left to ComfyUI.

    Raises ValueError unless the shapes fit. Files may hold a 1x1 convolution as a matrix and the other way round.
    """
    if not parts.keys() <= KNOWN:
        return None
    shape = (*shape, 1, 1)[: max(2, len(shape))]
    light = {part: tensor if part == "alpha" else tensor.to("meta") for part, tensor in parts.items()}
    flat = {part: tensor.flatten(1) if tensor.ndim > 2 else tensor for part, tensor in light.items()}
    try:
        return tcd.lora.path_from(light, shape).rank
    except ValueError as error:
        try:
            if not parts.keys() & CORES:
                return tcd.lora.path_from(flat, (shape[0], math.prod(shape[1:]))).rank
        except ValueError:
            pass
        raise ValueError(f"{error}; the weight has shape {shape}") from None


def patches_of(module: str, parts: Parts, key: Key) -> dict[Key, Any]:
    """ComfyUI's patches of one module. Raises ValueError for parts that it cannot use, or would use without others."""
    named = {f"{module}.{part}": tensor for part, tensor in parts.items()}
    try:
        patches = comfy.lora.load_lora(named, {module: key}, log_missing=False)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None
    except RuntimeError as error:
        raise ValueError(f"ComfyUI cannot use {', '.join(sorted(named))}: {error}") from None
    read = next((patch.loaded_keys for patch in patches.values() if hasattr(patch, "loaded_keys")), named.keys())
    if not patches or named.keys() - read:
        unknown = sorted(named.keys() - read if patches else named)
        raise ValueError(f"{', '.join(unknown)}: ComfyUI cannot use it")
    return patches


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What this thread logs within the `with`: ComfyUI tells in no other way that it leaves a patch out."""
    said, here, root = [], threading.get_ident(), logging.getLogger()

    def hear(record: logging.LogRecord) -> bool:
        if record.thread != here or record.levelno < logging.WARNING:
            return True
        said.append(record.getMessage())
        return False

    root.addFilter(hear)
    try:
        yield said
    finally:
        root.removeFilter(hear)


def check_usable(patches: Mapping[Key, Any], weights: Weights, device: str) -> None:
    """Raises ValueError for patches that ComfyUI cannot add to their weights: it does so only while it samples.

    On the device `meta` by shapes alone, which only some kinds can be told by.
    """
    for key, patch in patches.items():
        weight = torch.zeros(weights.shape(key), device=device)
        with complaints() as said:
            try:
                comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight, str(key))
            except Exception as error:  # each kind has its own
                said.append(str(error))
        if said:
            raise ValueError(f"ComfyUI cannot use it: {said[0]}")


def place(found: Match, weights: Weights, module: str, parts: Parts, key: Key | None) -> None:
    """Sort one module into those that fit and those that do not."""
    try:
        rank = rank_of(parts, weights.shape(key))
        assert key is not None
        patches = patches_of(module, parts, key)
        check_usable(patches, weights, "cpu" if rank is None else "meta")
    except ValueError as error:
        found.misfits[module] = str(error)
        return
    found.patches |= patches
    found.fitting[module] = key
    if rank is not None:
        found.ranks.add(rank)


def match(path: str, state: Mapping[str, Tensor], metadata: dict[str, str], model, clip=None) -> Match:
    """What a LoRA file's tensors are for. Raises ValueError where two modules are for the same weight."""
    state, weights, found = comfy.lora_convert.convert_lora(dict(state)), Weights(model, clip), Match()
    known = {key: tensor for key, tensor in state.items() if tcd.lora.PART.search(key)}
    found.misfits |= dict.fromkeys((key for key in state if key not in known), "is no key of a LoRA")
    taken: dict[Key, str] = {}
    for module, parts in tcd.lora.modules_of(known, path, metadata).items():
        key = weights.find(module)
        if key is None and clip is None and tcd.lora.is_text_encoder(module):
            found.left_out.append(module)
        elif key is not None and (other := taken.setdefault(key, module)) != module:
            raise ValueError(f"{other} and {module} are both for the weight {key}: one file, one adapter")
        else:
            place(found, weights, module, parts, key)
    return found
