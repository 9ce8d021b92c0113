"""The scale of PEFT's LoRA files, which keep it beside the tensors: in the metadata or in `adapter_config.json`."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

NETS = ("unet", "transformer")
PACKED = "lora_adapter_metadata"  # where diffusers keeps PEFT's settings, those of each network with its prefix
CONFIG = "adapter_config.json"


def as_settings(text: str, source: str) -> dict[str, Any]:
    """Raises ValueError unless `text` is a JSON object."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{source} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{source} must be a JSON object, got {type(found).__name__}")
    return found


def settings(path: str | os.PathLike, metadata: dict[str, str], nets: tuple[str, ...] = NETS) -> dict[str, Any]:
    """PEFT's settings of the LoRA file `path`: of its metadata, or else of the file beside it; none without either.

    Where diffusers packed those of several networks, it is the ones of `nets`.
    Raises ValueError for settings that cannot be read, or of another method than LoRA.
    """
    beside = Path(path).with_name(CONFIG)
    if PACKED in metadata:
        packed = as_settings(metadata[PACKED], PACKED)
        named = (key.partition(".") for key in packed)
        found = {name: packed[f"{net}.{name}"] for net, dot, name in named if dot and net in nets}
    elif "lora_alpha" in metadata:
        found = {"lora_alpha": metadata["lora_alpha"]}
    else:
        found = as_settings(beside.read_text(encoding="utf-8"), CONFIG) if beside.is_file() else {}
    if (kind := found.get("peft_type", "LORA")) != "LORA":
        raise ValueError(f"PEFT's {kind} is not supported, only LORA")
    return found


def alpha_of(found: dict[str, Any], module: str, rank: int) -> float:
    """Alpha of a layer of this rank: lora_alpha, or what alpha_pattern says of the file's `module`; else the rank.

    Rank-stabilised LoRA divides by the root of the rank instead of the rank. Raises ValueError for a value of no use,
    and for settings of another rank: they belong to another file.
    """
    if found.get("r", rank) != rank and not found.get("rank_pattern"):
        raise ValueError(f"{module} is of rank {rank}, PEFT's settings of rank {found['r']}")
    try:
        patterns = found.get("alpha_pattern") or {}
        matches = (alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module))
        alpha = float(next(matches, found.get("lora_alpha", rank)))
    except (re.error, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{module}: PEFT's settings hold an alpha of no use: {error}") from error
    if not math.isfinite(alpha):
        raise ValueError(f"{module}: PEFT's alpha must be finite, got {alpha}")
    return alpha * math.sqrt(rank) if found.get("use_rslora") else alpha
