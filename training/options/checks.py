"""What is allowed, and in which company: everything that can be told from the options alone."""

import dataclasses
import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .fields import Options

FRACTIONS = ("network_dropout", "caption_dropout_rate", "caption_tag_dropout_rate", "sample_gamma")
POSITIVE = ("learning_rate", "huber_c", "min_snr_gamma", "lr_scheduler_power")
FILES = ("dataset_config", "prompts", "network_weights", "sample_prompts")
SOURCES = ("train_data_dir", "dataset_config", "prompts")
MOST = 2**63  # what no number of steps or anything else reaches, nor torch can count to
LARGEST = 16384  # pixels of a side
LONGEST = 200  # bytes of a name, of the 255 that file systems have: numbers of steps and endings come after it


def is_file(path: str) -> bool:
    """Also where the system refuses to look, such as for a name that is too long: then it is none."""
    with suppress(OSError):
        return Path(path).is_file()
    return False


def is_folder(path: str) -> bool:
    """Likewise."""
    with suppress(OSError):
        return Path(path).is_dir()
    return False


def check_least(options: Any) -> None:
    """Numbers of any options' dataclass. (So put, the comparisons also refuse nan.)"""
    for f in dataclasses.fields(options):
        lowest, value = f.metadata["least"], getattr(options, f.name)
        if lowest is not None and not value >= lowest:
            raise ValueError(f"{f.name} must be at least {lowest}, got {value}")
        if lowest is not None and value >= MOST:
            raise ValueError(f"{f.name} must be less than {float(MOST):g}, got {value!s:.50}")


def check_name(what: str, name: str) -> None:
    """A name for a file on any system, with no folder in it: what is written stays where it belongs."""
    if not name.strip(". ") or re.search(r'[\x00-\x1f/\\:*?"<>|]', name) or len(os.fsencode(name)) > LONGEST:
        rule = f"the name of a file, of at most {LONGEST} bytes and without a folder"
        raise ValueError(f"{what} must be {rule}, got {name!r}")


def check_resolution(resolution: str) -> None:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)?", resolution):
        raise ValueError(f"resolution must be a number or width,height, got {resolution!r}")
    if re.search(r"\d{6}", resolution) or max(map(int, resolution.split(","))) > LARGEST:
        raise ValueError(f"resolution must be at most {LARGEST} a side, got {resolution:.50}")


def check_numbers(options: Options) -> None:
    """Each value by itself."""
    check_least(options)
    check_resolution(options.resolution)
    for name in POSITIVE:
        if not 0 < getattr(options, name) < math.inf:
            raise ValueError(f"{name} must be positive, got {getattr(options, name)}")
    for name in FRACTIONS:
        if not getattr(options, name) <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {getattr(options, name)}")
    if not options.ema_decay < 1:
        raise ValueError(f"ema_decay must be in [0, 1), got {options.ema_decay}")
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", options.sample_steps):
        raise ValueError(f"sample_steps must be numbers with commas, such as 1,2,4,8; got {options.sample_steps!r}")


def check_choices(options: Any) -> None:
    for f in dataclasses.fields(options):
        allowed, value = f.metadata["choices"], getattr(options, f.name)
        if allowed and value not in allowed:
            raise ValueError(f"{f.name} must be one of {', '.join(allowed)}; got {value!r}")


def in_company(options: Any, condition: str) -> bool:
    """Whether "name=value value" holds, or an option of that name is given."""
    owner, equals, allowed = condition.partition("=")
    return str(getattr(options, owner)) in allowed.split() if equals else bool(getattr(options, owner))


def check_texts(options: Any) -> None:
    """What no file can hold, and no path: half a character, as of a flag that is no UTF-8, and a null byte."""
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        for text in value if isinstance(value, tuple) else [value]:
            if isinstance(text, str) and re.search(r"[\0\ud800-\udfff]", text):
                raise ValueError(f"{f.name} must be UTF-8 text without null bytes, got {text!r}")


def check_company(options: Any) -> None:
    """An option that another one makes meaningless is an error, as it would have no effect."""
    for f in dataclasses.fields(options):
        conditions = f.metadata["of"].split("|")
        if conditions == [""] or getattr(options, f.name) == f.default:
            continue
        if not any(in_company(options, condition) for condition in conditions):
            raise ValueError(f"{f.name} has no effect without {' or '.join(conditions)}")


def check_pairs(options: Options) -> None:
    """Values that exclude each other."""
    if options.guidance_max < options.guidance_min:
        raise ValueError(f"guidance_max {options.guidance_max} is below guidance_min {options.guidance_min}")
    if options.max_timestep <= options.min_timestep:
        raise ValueError(f"max_timestep {options.max_timestep} is not above min_timestep {options.min_timestep}")
    if options.max_bucket_reso < options.min_bucket_reso:
        raise ValueError(
            f"max_bucket_reso {options.max_bucket_reso} is below min_bucket_reso {options.min_bucket_reso}"
        )
    if options.ends == 0 and (options.tcf, options.loss_type) != ("1", "l2"):
        got = f"tcf {options.tcf} and {options.loss_type}"
        raise ValueError(f"ends 0, all in closed form, is for tcf 1 and l2, got {got}")
    if options.cache_latents_to_disk and not options.cache_latents:
        raise ValueError("cache_latents_to_disk keeps what cache_latents caches: leave out --no-cache_latents")
    if options.cache_latents and options.random_crop:
        raise ValueError("random_crop cuts anew at every step: it needs --no-cache_latents")
    if options.cache_text_encoder_outputs and (options.shuffle_caption or options.caption_tag_dropout_rate):
        name = "shuffle_caption" if options.shuffle_caption else "caption_tag_dropout_rate"
        raise ValueError(f"{name} changes captions at every step: it needs --no-cache_text_encoder_outputs")
    if options.method != "tcd" and options.sample_gamma != 0.3:
        raise ValueError(f"sample_gamma is for method tcd: students of {options.method} are sampled with gamma 1")
    if options.torch_compile and options.gradient_checkpointing:
        raise ValueError("torch_compile chooses itself what to compute again: leave it out, or gradient_checkpointing")
    if options.fsdp and options.sample_prompts:
        raise ValueError("sample_prompts needs the whole student in one process: leave it out, or fsdp")
    if options.dim_from_weights and not options.network_weights:
        raise ValueError("dim_from_weights needs network_weights")
    own = options.network_dim != Options.network_dim or options.network_alpha != Options.network_alpha
    if options.dim_from_weights and own:
        raise ValueError("dim_from_weights takes rank and alpha from the file: leave out network_dim and network_alpha")


def check_files(files: Iterable[tuple[str, str]]) -> None:
    """Of options and what they are set to: each that is set is a file."""
    for name, value in files:
        if value and not is_file(value):
            raise ValueError(f"{name} does not exist: {value!r}")


def check_checkpoint(options: Any) -> None:
    """The teacher and what is merged into it exist."""
    name = "pretrained_model_name_or_path"
    if not options.pretrained_model_name_or_path or not is_file(options.pretrained_model_name_or_path):
        raise ValueError(f"{name} does not exist: {options.pretrained_model_name_or_path!r}")
    named = {"vae": [options.vae], "text_encoders": options.text_encoders, "base_weights": options.base_weights}
    check_files((name, path) for name, paths in named.items() for path in paths)
    if options.text_encoders and options.checkpoint_loader:
        raise ValueError("text_encoders are loaded by ComfyUI, not with checkpoint_loader: leave one of them out")
    if odd := [number for number in options.base_weights_multiplier if not math.isfinite(number)]:
        raise ValueError(f"base_weights_multiplier must be finite numbers, got {odd[0]}")
    if len(options.base_weights_multiplier) not in (0, len(options.base_weights)):
        wanted, got = len(options.base_weights), len(options.base_weights_multiplier)
        raise ValueError(f"base_weights_multiplier must be {wanted} numbers, one for each of base_weights, got {got}")


def check_paths(options: Options) -> None:
    """What has to exist does, and what is written has a name."""
    check_checkpoint(options)
    check_name("output_name", options.output_name)
    if len(given := [name for name in SOURCES if getattr(options, name)]) != 1:
        raise ValueError(f"one of {', '.join(SOURCES)} must be given, got {' and '.join(given) or 'none'}")
    if options.train_data_dir and not is_folder(options.train_data_dir):
        raise ValueError(f"train_data_dir does not exist: {options.train_data_dir!r}")
    check_files((name, getattr(options, name)) for name in FILES)
    if options.resume not in ("", "auto") and not is_file(options.resume):
        raise ValueError(f"resume must be `auto` or a state file, got {options.resume!r}")


CHECKS = (check_numbers, check_choices, check_texts, check_company, check_pairs, check_paths)


def check(options: Options) -> Options:
    """The options themselves. Raises ValueError that names the first one that is not allowed, and what is."""
    for look in CHECKS:
        look(options)
    return options
