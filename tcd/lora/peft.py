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
SLOW = re.compile(r"(?s)\)[*+?{]|[*+?{].*[*+?{]")  # patterns that may take forever on a name made for it


def as_settings(text: str, source: str) -> dict[str, Any]:
    """Raises ValueError unless `text` is a JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{source} is no JSON: {reason}") from error
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


def fits(pattern: str, module: str) -> bool:
    """Whether a pattern of PEFT's is for this module. Raises ValueError for one that is no use, or may take forever."""
    if SLOW.search(pattern):
        raise ValueError(f"{pattern!r} repeats more than one character, or repeats twice")
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
    except re.error as error:
        raise ValueError(f"{pattern!r} is no pattern: {error}") from error


def alpha_of(found: dict[str, Any], module: str, rank: int) -> float:
    """Alpha of a layer of this rank: lora_alpha, or what alpha_pattern says of the file's `module`; else the rank.

    Rank-stabilised LoRA divides by the root of the rank instead of the rank. Raises ValueError for a value of no use,
    and for settings of another rank: they belong to another file.
    """
    if found.get("r", rank) != rank and not found.get("rank_pattern"):
        raise ValueError(f"{module} is of rank {rank}, PEFT's settings of rank {found['r']}")
    patterns = found.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"PEFT's alpha_pattern must be a JSON object, got {patterns!r:.100}")
    try:
        told = next(
            (alpha for pattern, alpha in patterns.items() if fits(pattern, module)), found.get("lora_alpha", rank)
        )
    except ValueError as error:
        raise ValueError(f"{module}: PEFT's alpha_pattern: {error}") from error
    try:
        alpha = float(told)
    except (TypeError, ValueError, OverflowError):
        alpha = math.nan
    if not math.isfinite(alpha):
        raise ValueError(f"{module}: PEFT's alpha must be a finite number, got {told!r:.100}")
    return alpha * math.sqrt(rank) if found.get("use_rslora") else alpha
