"""What can be asked of `python -m training.evaluate`; the names that the trainer has too mean the same."""

from dataclasses import dataclass, field, fields
from typing import Any

import tcd

from ..options import FIELDS, Options
from ..options.fields import Model, option


def shared(name: str) -> Any:
    """The trainer's own option of this name."""
    return field(default=FIELDS[name].default, metadata=FIELDS[name].metadata)


@dataclass(frozen=True)
class Rows:
    """Rows of the table"""

    network_weights: tuple[str, ...] = option(
        (), "LoRA files, each as a path or as name=path; without any the checkpoint is itself the student"
    )
    methods: tuple[str, ...] = option(
        ("tcd:steps=4",),
        "how to sample: a student's tcd:steps=4,gamma=0.3,tcf=1,w=0 (gamma and tcf default to what the LoRA's file "
        "says), cm, lcm or direct_cm:steps=4,w=0 (gamma 1), a row for each LoRA; or the teacher's solver without a "
        f"LoRA, {', '.join(tcd.SOLVERS)}:steps=25,w=6.5; w is guidance as in (1 + w) cond - w uncond, 0 is none",
    )
    prompts: str = option("", "a text file of prompts, one a line")
    train_data_dir: str = option("", "instead of prompts: the captions of {repeats}_{name} folders, each once")
    caption_extension: str = shared("caption_extension")
    max_prompts: int = option(0, "only so many of the prompts, spread evenly over the list (0: all)", least=0)
    seeds: tuple[int, ...] = option((0,), "seeds of the noise; of several the table has mean and spread")
    resolution: str = shared("resolution")
    uncond: str = shared("uncond")
    mixed_precision: str = shared("mixed_precision")
    batch_size: int = option(1, "pictures that are sampled at once", least=1)


@dataclass(frozen=True)
class Teacher:
    """The teacher to compare with"""

    teacher_steps: int = option(25, "steps of its solver", least=1)
    teacher_solver: str = option("dpmpp_2s", "its solver", tuple(tcd.SOLVERS))
    teacher_guidance: float = option(6.5, "its w; ComfyUI's cfg is 1 + w", least=0)


@dataclass(frozen=True)
class Measures:
    """Columns of the table"""

    metrics: tuple[str, ...] = option(
        ("ode_error", "self_consistency", "drift", "high_frequency_energy", "compressed_size"),
        "of tcd.metrics and tcd.scores: see METRICS of training/evaluate/metrics.py",
    )
    real_data: str = option("", "a folder of pictures to compare distributions with (default: the teacher's pictures)")
    features: str = option("", "for frechet: package.module:function that makes images [B, H, W, 3] features [B, D]")
    weights: tuple[str, ...] = option((), "of published networks that scores need, as metric=path")
    probe_prompts: int = option(
        16, "ode_error, self_consistency and drift are means over the first so many prompts (0: all)", least=0
    )


@dataclass(frozen=True)
class Written:
    """Output"""

    output_dir: str = option("evaluation", "where pictures, tables and sheet go; what is there already is used again")
    sheet_prompts: int = option(8, "prompts on the contact sheet", least=1)


GROUPS = (Model, Rows, Teacher, Measures, Written)


@dataclass(frozen=True)
class EvaluateOptions(Written, Measures, Teacher, Rows, Model):
    """Every option of `python -m training.evaluate`, with its default, as one flat record."""

    @property
    def model(self) -> Options:
        """What of it concerns the model and its size, as the trainer's own options."""
        names = [f.name for f in fields(Model)] + ["mixed_precision", "resolution", "uncond"]
        return Options(**{name: getattr(self, name) for name in names})

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `resolution`."""
        return self.model.size
