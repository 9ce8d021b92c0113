"""The trainer's options: kohya's names and meanings, from flags and a TOML file, checked before any work."""

import argparse
import dataclasses
import difflib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import tcd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with its help text and, where the values are few, the allowed ones."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Options:
    """Every option of `python -m training.train`, with its default."""

    pretrained_model_name_or_path: str = option("", "the teacher: one .safetensors checkpoint")
    checkpoint_loader: str = option("", "package.module:function that gives MODEL, CLIP, VAE instead of ComfyUI's own")
    train_data_dir: str = option("", "folder of {repeats}_{name} folders with pictures and captions")
    caption_extension: str = option(".txt", "ending of the caption files")
    resolution: int = option(512, "pictures are scaled and cropped to this square, in pixels")
    output_dir: str = option("output", "where the LoRA is written")
    output_name: str = option("tcd_lora", "file name of the LoRA, without ending")
    save_precision: str = option("fp16", "number format of the saved LoRA", ("float", "fp16", "bf16"))
    save_every_n_steps: int = option(0, "also save the LoRA every n steps (0: only at the end)")
    save_state: bool = option(False, "with every save, also write what --resume needs")
    resume: str = option("", "a state file, or `auto`: this output's own state when there is one")
    train_batch_size: int = option(1, "samples a step")
    max_train_steps: int = option(1600, "optimizer steps in all")
    seed: int = option(0, "seed of everything that is drawn")
    mixed_precision: str = option("no", "format of the network's products", ("no", "bf16"))
    learning_rate: float = option(1e-4, "peak learning rate of AdamW")
    lr_scheduler: str = option("constant", "how the learning rate goes on after the warm-up", ("constant", "cosine"))
    lr_warmup_steps: int = option(0, "steps of linear warm-up")
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm (0: never)")
    network_dim: int = option(64, "rank of the LoRA")
    network_alpha: float = option(0.0, "scale of the LoRA is alpha / dim (0: alpha = dim)")
    skip_steps: int = option(20, "k: the teacher goes from t_{n+k} to t_n in one step")
    guidance_min: float = option(2.0, "smallest w of the guided teacher, (1 + w) cond - w uncond")
    guidance_max: float = option(14.0, "largest w")
    tcf: str = option("1", "trajectory consistency function of the student", ("1", "2"))
    ends: int = option(1, "end points m for each sample and step; 0: all of them, in closed form (TCF(1) only)")
    solver: str = option("ddim", "the teacher's solver", tuple(tcd.SOLVERS))
    uncond: str = option("empty_prompt", "the unconditional embedding", ("empty_prompt", "zeros"))
    training_comment: str = option("", "goes into the LoRA's metadata")


FIELDS = {f.name: f for f in dataclasses.fields(Options)}
TYPES = get_type_hints(Options)
AT_LEAST = {
    "resolution": 8,
    "save_every_n_steps": 0,
    "train_batch_size": 1,
    "max_train_steps": 1,
    "seed": 0,
    "lr_warmup_steps": 0,
    "max_grad_norm": 0,
    "network_dim": 1,
    "network_alpha": 0,
    "skip_steps": 1,
    "ends": 0,
    "guidance_min": 0,
}


def parser() -> argparse.ArgumentParser:
    """The command line, made from the fields of Options."""
    made = argparse.ArgumentParser(
        prog="python -m training.train", description="Distil a diffusion model into a TCD LoRA that ComfyUI loads."
    )
    made.add_argument("--config_file", type=Path, help="TOML file of these options; flags win over it")
    for name, f in FIELDS.items():
        text = f"{f.metadata['help']} (default: {f.default!r})"
        if TYPES[name] is bool:
            made.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            made.add_argument(f"--{name}", type=TYPES[name], choices=f.metadata["choices"], help=text)
    return made


def from_toml(path: Path) -> dict[str, Any]:
    """The options in a TOML file. Unknown names are errors that suggest the nearest; so are values of another type."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no such config_file: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config_file {path} is not valid TOML: {error}") from None
    for name, value in values.items():
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            raise ValueError(f"{path}: unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        wanted = TYPES[name]
        if not (type(value) is wanted or (wanted is float and type(value) is int)):
            raise ValueError(f"{path}: {name} must be of type {wanted.__name__}, got {value!r}")
    return values


def check(options: Options) -> Options:
    """Raise ValueError that names the first option with a value that is not allowed."""
    for name, lowest in AT_LEAST.items():
        if getattr(options, name) < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {getattr(options, name)}")
    for name, f in FIELDS.items():
        if f.metadata["choices"] and getattr(options, name) not in f.metadata["choices"]:
            raise ValueError(
                f"{name} must be one of {', '.join(f.metadata['choices'])}; got {getattr(options, name)!r}"
            )
    if not options.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {options.learning_rate}")
    if options.guidance_max < options.guidance_min:
        raise ValueError(f"guidance_max {options.guidance_max} is below guidance_min {options.guidance_min}")
    if options.ends == 0 and options.tcf != "1":
        raise ValueError(f"ends 0, all in closed form, is for tcf 1, got tcf {options.tcf}")
    for name, exists in (("pretrained_model_name_or_path", Path.is_file), ("train_data_dir", Path.is_dir)):
        value = getattr(options, name)
        if not value or not exists(Path(value)):
            raise ValueError(f"{name} does not exist: {value!r}")
    if options.resume not in ("", "auto") and not Path(options.resume).is_file():
        raise ValueError(f"resume must be `auto` or a state file, got {options.resume!r}")
    return options


def read(arguments: list[str] | None = None) -> Options:
    """Options from the command line and the TOML file that it names, checked."""
    flags = vars(parser().parse_args(arguments))
    config = flags.pop("config_file")
    values = from_toml(config) if config else {}
    return check(Options(**values | {name: value for name, value in flags.items() if value is not None}))
