"""LoRA files: safetensors with the keys of kohya and LyCORIS, written at once or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .adapter import Lora
from .names import EXTRA, diffusers_keys

NAMINGS = ("own", "diffusers")
LONGEST = 1000  # characters of a key, which patterns are matched with: the time that takes grows with its square


def keys_of(adapter: Lora, names: str, net: nn.Module | None) -> dict[str, str]:
    """Kohya name of each layer -> what a file calls it."""
    if names not in NAMINGS or (names == "diffusers" and net is None):
        raise ValueError(f"names must be one of {', '.join(NAMINGS)}, and diffusers' need the network; got {names!r}")
    theirs = diffusers_keys(name for name, _ in net.named_modules()) if net and names == "diffusers" else {}
    return {key: theirs.get(name, key) for key, name in adapter.names.items()}


def state_dict(
    adapter: Lora, dtype: torch.dtype = torch.float32, names: str = "own", net: nn.Module | None = None
) -> dict[str, Tensor]:
    """Kohya's keys: `<name>.lora_down.weight`, `<name>.lora_up.weight` (or LyCORIS' parts), `<name>.alpha` (0-dim).

    The name is the network's own, or with `names` "diffusers" that of diffusers, as kohya has it for SD 1.x and 2.x: of
    those modules of `net`, a UNet of LDM's naming, that have one. Raises ValueError for another naming.
    """
    state, keys = {}, keys_of(adapter, names, net)
    for key, path in adapter.paths.items():
        for name, factor in path.factors.items():
            state[f"{keys[key]}.{path.PARTS[name]}"] = factor.detach().to("cpu", dtype).contiguous()
        state[f"{keys[key]}.alpha"] = torch.tensor(float(path.alpha), dtype=dtype)
    return state


def hashes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """What kohya's tools know a file by: a hash of its tensors' bytes, and the older one of 64 KiB after the first MiB.

    The latter is of the file with ss_* metadata alone, as everything else may be edited later.
    """
    data = to_bytes(dict(state), {key: value for key, value in metadata.items() if key.startswith("ss_")})
    tensors = memoryview(data)[8 + int.from_bytes(data[:8], "little") :]
    legacy = hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    return {"sshs_model_hash": hashlib.sha256(tensors).hexdigest(), "sshs_legacy_hash": legacy}


def save(
    path: str | os.PathLike,
    adapter: Lora,
    metadata: dict[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
    extra: Mapping[str, Tensor] | None = None,
    names: str = "own",
    net: nn.Module | None = None,
) -> None:
    """Save as kohya-format safetensors, atomically; what `hashes` gives is added to the metadata.

    `extra` are tensors to go beside the LoRA, as they are; their keys begin with one of EXTRA. `names` and `net`
    are as in `state_dict`. Raises ValueError for other keys and namings.
    """
    if strangers := [key for key in extra or {} if not key.startswith(EXTRA)]:
        raise ValueError(f"extra tensors begin with {', '.join(EXTRA)}, got {strangers[0]}")
    state = state_dict(adapter, dtype, names, net) | {
        key: tensor.contiguous().cpu() for key, tensor in (extra or {}).items()
    }
    metadata = {**(metadata or {}), **hashes(state, metadata or {})}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    try:
        scratch.write_bytes(to_bytes(state, metadata))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def check_tensor(key: str, tensor: Tensor) -> None:
    """Raises ValueError for a key that is no name, and for values of which a network makes black pictures."""
    if len(key) > LONGEST:
        raise ValueError(f"a key has at most {LONGEST} characters, got {len(key):,} of {key[:50]!r}...")
    if not tensor.numel():
        raise ValueError(f"{key} is empty, of shape {tuple(tensor.shape)}")
    if tensor.is_floating_point() and not bool(tensor.half().isfinite().all()):
        raise ValueError(f"{key} holds values that are not finite in half precision: the file is broken")


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a LoRA file.

    Raises FileNotFoundError, or ValueError for a file that is no safetensors or holds values that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such LoRA file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except Exception as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        for key, tensor in state.items():
            check_tensor(key, tensor)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return state, metadata


def metadata_of(settings: dict) -> dict[str, str]:
    """Metadata as kohya writes it: every value a string, numbers and lists as JSON, None left out."""
    known = {key: value for key, value in settings.items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}
