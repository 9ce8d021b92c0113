"""LoRA files: safetensors with the keys of kohya and LyCORIS, written at once or not at all."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from .adapter import Lora


def state_dict(adapter: Lora, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Kohya's keys: `<name>.lora_down.weight`, `<name>.lora_up.weight` (or LyCORIS' parts), `<name>.alpha` (0-dim)."""
    state = {}
    for key, path in adapter.paths.items():
        for name, factor in path.factors.items():
            state[f"{key}.{path.PARTS[name]}"] = factor.detach().to("cpu", dtype).contiguous()
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


def metadata_of(settings: dict) -> dict[str, str]:
    """Metadata as kohya writes it: every value a string, numbers and lists as JSON, None left out."""
    known = {key: value for key, value in settings.items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}
