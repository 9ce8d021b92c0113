"""Pictures that show what the student can do so far, and how far it is from the teacher: the same noise every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from torch import Tensor

import tcd

from .. import host, save
from ..host import Cond, Models, Size
from ..metadata import GAMMA
from ..network import Parts
from ..options import Options
from ..sampling import initial_noise, student_latents, teacher_latents
from . import prompts, sheet
from .prompts import Prompt


@dataclass(frozen=True, eq=False)
class Scene:
    """A prompt with all that it takes to sample it."""

    prompt: Prompt
    cond: Cond
    negative: Cond
    noise: Tensor  # [1, C, h, w]

    @property
    def size(self) -> Size:
        width, height = self.prompt.width, self.prompt.height
        return Size(width, height, 0, 0, width, height)


def scene_of(models: Models, prompt: Prompt, uncond: Cond, sched: tcd.Schedule) -> Scene:
    """The prompt, encoded. Raises ValueError with its place for a size or a number of steps that cannot be."""
    try:
        for steps in prompt.steps:
            tcd.timesteps(sched, steps)
        noise = initial_noise(models, (prompt.width, prompt.height), prompt.seed)
    except ValueError as error:
        raise ValueError(f"{prompt.place}: {error}") from None
    negative = uncond if prompt.negative is None else host.encode_text(models, prompt.negative)
    return Scene(prompt, host.encode_text(models, prompt.text), negative, noise)


@contextmanager
def at(step: int) -> Iterator[None]:
    """Errors within the `with` name the step."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"sample pictures after {step} steps: {error}") from error


class Preview:
    """The sample prompts of a run, encoded once, while the text encoder is there.

    The teacher is sampled once, with the mean of the guidance that is trained; the student without guidance, unless its
    prompt says --l, and with `sample_gamma`. Students of cm, lcm and direct_cm, which know the jump to clean data
    alone, are sampled with gamma 1. Nothing that training draws or computes is changed.
    """

    def __init__(self, models: Models, parts: Parts, uncond: Cond, opts: Options):
        self.models, self.parts, self.opts = replace(models, clip=None), parts, opts
        self.gamma = opts.sample_gamma if opts.method == "tcd" else GAMMA[opts.method]
        self.scenes = [scene_of(models, prompt, uncond, parts.sched) for prompt in prompts.read(opts)]

    @staticmethod
    def check(opts: Options) -> None:
        """Raises ValueError for a file of prompts that cannot be read."""
        if opts.sample_prompts:
            prompts.read(opts)

    @cached_property
    def references(self) -> list[Tensor]:
        """The guided teacher's latents of each scene."""
        how = (self.opts.ode_error_steps, self.opts.solver, (self.opts.guidance_min + self.opts.guidance_max) / 2)
        return [
            teacher_latents(self.parts, [scene.cond], scene.negative, [scene.size], scene.noise, *how)
            for scene in self.scenes
        ]

    def student(self, scene: Scene, steps: int, w: float = 0.0) -> Tensor:
        """The student's latents of a scene, [1, C, h, w]."""
        what = (self.parts, [scene.cond], scene.negative, [scene.size], scene.noise)
        return student_latents(*what, steps, self.gamma, self.opts.tcf, [scene.prompt.seed], w)

    def row(self, scene: Scene, reference: Tensor) -> sheet.Row:
        """The teacher's picture and the student's, one for each number of steps."""
        latents = {f"teacher, {sheet.counted(self.opts.ode_error_steps)}": reference}
        latents |= {
            sheet.counted(steps): self.student(scene, steps, scene.prompt.cfg - 1) for steps in scene.prompt.steps
        }
        pictures = {label: host.decode_latents(self.models, latent)[0] for label, latent in latents.items()}
        return sheet.Row(scene.prompt.text, pictures)

    def sheet(self, step: int) -> Path:
        """Write the contact sheet of the student after `step` steps; returns its path. Raises OSError if it cannot."""
        with at(step):
            rows = [self.row(scene, reference) for scene, reference in zip(self.scenes, self.references, strict=True)]
        image = sheet.draw(f"{self.opts.output_name} after {sheet.counted(step)}, gamma {self.gamma:g}", rows)
        path = Path(self.opts.output_dir, "sample", f"{self.opts.output_name}-step{step:08d}.png")
        save.replace(path, lambda scratch: image.save(scratch, format="PNG"))
        return path

    def ode_error(self, step: int) -> float:
        """ODE-solving error of the student after `step` steps: its one step against the teacher's, from each noise."""
        with at(step):
            pairs = [(self.student(scene, 1), made) for scene, made in zip(self.scenes, self.references, strict=True)]
        return fmean(tcd.metrics.ode_error(*pair) for pair in pairs)
