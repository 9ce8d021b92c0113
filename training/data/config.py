"""A dataset TOML: which keys it may have, and the subsets that it makes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..options import FIELDS, REFUSED, Options, read_toml
from ..options.checks import check_company, check_numbers, check_pairs, check_texts, is_folder
from ..options.command_line import converted, hint
from .sources import Subset, check

EVERYWHERE = (
    *("num_repeats", "caption_prefix", "caption_suffix", "caption_extension", "caption_separator", "keep_tokens"),
    *("shuffle_caption", "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate"),
    *("flip_aug", "random_crop"),
)
BUCKETS = ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")
WHOLE = ("resolution", "enable_bucket", *BUCKETS)
# Table of the TOML file -> the keys that may be in it.
KEYS = {
    "[general]": EVERYWHERE + WHOLE,
    "[[datasets]]": (*EVERYWHERE, *WHOLE, "subsets"),
    "[[datasets.subsets]]": (*EVERYWHERE, "image_dir", "class_tokens"),
    "the file": ("general", "datasets"),
}
OWN = {"image_dir": str, "num_repeats": int, "class_tokens": str, "caption_prefix": str, "caption_suffix": str}
NOT_HERE = REFUSED | {
    "batch_size": "train_batch_size is the same for all datasets",
    "is_reg": "there are no regularisation pictures in distillation",
}


def unknown(key: str, table: str) -> str:
    """Why a key may not be in this table."""
    if key in NOT_HERE:
        return f"{key} is not for {table}: {NOT_HERE[key]}"
    if places := [place for place, keys in KEYS.items() if key in keys]:
        return f"{key} belongs into {' or '.join(places)}, not into {table}"
    return f"unknown key {key!r} in {table}{hint(key, KEYS[table])}"


def typed(key: str, value: Any) -> Any:
    """A value in the type that the key has. Raises ValueError for one of another type."""
    if key in FIELDS:
        pair = key == "resolution" and isinstance(value, list)  # which kohya's files also have as [width, height]
        return converted(key, ",".join(map(str, value)) if pair else value)
    if type(value) is not OWN[key]:
        raise ValueError(f"{key} must be of type {OWN[key].__name__}, got {value!r}")
    return value


def check_keys(content: Any, table: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{table} must be a table, got {content!r}")
    if strange := [key for key in content if key not in KEYS[table]]:
        raise ValueError(unknown(strange[0], table))


def settings(content: Any, table: str) -> dict[str, Any]:
    """What one table sets. Raises ValueError for keys that do not belong there and for values of another type."""
    check_keys(content, table)
    return {key: typed(key, value) for key, value in content.items() if key != "subsets"}


def tables(content: dict[str, Any], key: str, table: str) -> list[Any]:
    found = content.get(key)
    if not isinstance(found, list) or not found:
        raise ValueError(f"there must be a {table} at least")
    return found


def subset_of(values: dict[str, Any], opts: Options) -> Subset:
    """The subset that these settings make. Raises ValueError for values that are not allowed."""
    own = {key: values.pop(key) for key in OWN if key in values}
    made = replace(opts, **values)
    for look in (check_numbers, check_texts, check_company, check_pairs, check):
        look(made)
    folder, repeats = own.get("image_dir", ""), own.get("num_repeats", 1)
    if not folder or not is_folder(folder):
        raise ValueError(f"image_dir must be a folder, got {folder!r}")
    if repeats < 1:
        raise ValueError(f"num_repeats must be at least 1, got {repeats}")
    texts = (own.get(key, "").strip() for key in ("class_tokens", "caption_prefix", "caption_suffix"))
    return Subset(Path(folder), repeats, made, *texts)


def check_buckets(found: list[Subset]) -> None:
    """Raises ValueError where buckets are described, but nowhere in use."""
    changed = [name for name in BUCKETS if any(getattr(subset.opts, name) != FIELDS[name].default for subset in found)]
    if changed and not any(subset.opts.enable_bucket for subset in found):
        raise ValueError(f"{changed[0]} has no effect without enable_bucket = true")


def subsets(path: Path, opts: Options) -> list[Subset]:
    """The subsets of the file: the nearer setting wins, and the options are the farthest.

    Raises ValueError, with the path, for keys and values that are not allowed.
    """
    config = read_toml(path, "dataset_config")
    try:
        check_keys(config, "the file")
        general = settings(config.get("general", {}), "[general]")
        found = []
        for dataset in tables(config, "datasets", "[[datasets]]"):
            shared = general | settings(dataset, "[[datasets]]")
            for subset in tables(dataset, "subsets", "[[datasets.subsets]]"):
                found.append(subset_of(shared | settings(subset, "[[datasets.subsets]]"), opts))
        check_buckets(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return found
