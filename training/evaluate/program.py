"""The command line, and what can be told of the options without a look into any file."""

from ..options.checks import (
    check_checkpoint,
    check_choices,
    check_company,
    check_files,
    check_least,
    check_resolution,
    check_texts,
    is_folder,
)
from ..options.command_line import Program
from .options import GROUPS, EvaluateOptions

SOURCES = ("prompts", "train_data_dir")
SHARED_CHECKS = (check_least, check_choices, check_texts, check_company, check_checkpoint)


def check(opts: EvaluateOptions) -> EvaluateOptions:
    """The options themselves. Raises ValueError that names the first one that is not allowed, and what is."""
    for look in SHARED_CHECKS:
        look(opts)
    check_resolution(opts.resolution)
    check_files([("prompts", opts.prompts)])
    if len(given := [name for name in SOURCES if getattr(opts, name)]) != 1:
        raise ValueError(f"one of {' and '.join(SOURCES)} must be given, got {' and '.join(given) or 'none'}")
    for name in ("train_data_dir", "real_data"):
        if getattr(opts, name) and not is_folder(getattr(opts, name)):
            raise ValueError(f"{name} does not exist: {getattr(opts, name)!r}")
    for name in ("methods", "seeds", "metrics"):
        if not getattr(opts, name):
            raise ValueError(f"{name} must have one entry at least")
    if len(set(opts.seeds)) < len(opts.seeds) or min(opts.seeds) < 0:
        raise ValueError(f"seeds must differ and be at least 0, got {' '.join(map(str, opts.seeds))}")
    return opts


EVALUATOR = Program(
    name="python -m training.evaluate",
    description="Sample a list of prompts with LoRAs and solvers, and measure the pictures.",
    options=EvaluateOptions,
    groups=GROUPS,
    check=check,
)
