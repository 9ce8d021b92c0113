"""No pictures, but prompts: the teacher makes a latent for each, once."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from .. import host
from ..draws import generator
from ..host import Cond
from ..options import Options
from ..textfile import read_text
from . import buckets
from .bad import Bad, settle
from .cache import Folder, key, weights_key
from .encode import Stored
from .samples import Sample, View, check_epoch
from .texts import LOOKED_AT, Texts, encoder_key
from .threads import chunks

if TYPE_CHECKING:
    from ..network import Parts

# What else decides what the teacher makes, besides its weights.
TEACHER = (
    *("teacher_steps", "teacher_solver", "teacher_guidance", "uncond", "guidance_scale", "seed"),
    *("v_parameterization", "zero_terminal_snr", "discrete_flow_shift"),
)


def read(path: Path) -> list[str]:
    """The prompts of a file, one a line; empty lines and those that start with # are none.

    Raises ValueError for a file that is not UTF-8 or has no prompts.
    """
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"prompts {path} cannot be read as UTF-8: {error}") from None
    if not (found := [line for line in lines if line and not line.startswith("#")]):
        raise ValueError(f"no prompts in {path}")
    return found


def samples(opts: Options) -> list[Sample]:
    """latents_per_prompt samples of each prompt. Raises ValueError for a file without any, or a bad resolution."""
    buckets.check(opts)
    fit = buckets.fit(opts.size, opts)
    found = Counter(read(Path(opts.prompts)))  # a prompt that is there twice gets other latents each time
    check_epoch(found.total() * opts.latents_per_prompt)
    return [
        Sample(f"prompt {prompt!r} ({i + 1})", prompt, 1, opts, opts.size, fit, key(prompt, i))
        for prompt, times in found.items()
        for i in range(times * opts.latents_per_prompt)
    ]


def teacher_key(models: host.Models, opts: Options) -> str:
    """Of what makes the latents."""
    settings = tuple(getattr(opts, name) for name in TEACHER)
    return key(weights_key(models.unet, LOOKED_AT), encoder_key(models, opts), settings)


def make(models: host.Models, parts: "Parts", views: Sequence[View], encoded: Texts, uncond: Cond) -> Tensor:
    """The teacher's latents [B, C, h, w] for the captions of these views, each from a noise of its own.

    Raises ValueError where one is not finite.
    """
    from .. import sampling

    opts, contents = views[0].sample.opts, [view.sample.content for view in views]
    seeds = [generator(opts.seed, "prompt", content).initial_seed() for content in contents]
    noise = torch.cat([sampling.initial_noise(models, opts.size, seed) for seed in seeds])
    conds, sizes = [encoded(view.sample.caption) for view in views], [view.size for view in views]
    how = (opts.teacher_steps, opts.teacher_solver, opts.teacher_guidance)
    return sampling.teacher_latents(parts, conds, uncond, sizes, noise, *how)


def keep(stored: Stored, batch: Sequence[View], made: Callable[[Sequence[View]], Tensor]) -> list[Bad]:
    """Put the batch's latents into the store; returns the samples that the teacher has none for, found one by one."""
    try:
        latents = made(batch)
    except ValueError as error:
        if len(batch) > 1:
            return [bad for view in batch for bad in keep(stored, [view], made)]
        return [Bad(batch[0].sample.name, f"has no latent: {error}")]
    for view, latent in zip(batch, latents, strict=True):
        stored.put(view, latent)
    return []


def latents(
    models: host.Models, parts: "Parts", found: Sequence[Sample], encoded: Texts, uncond: Cond, opts: Options
) -> tuple[Stored, list[Bad]]:
    """The samples' latents, and the samples that have none. Each batch is on the disk as soon as it is made, so that a
    making that is interrupted goes on. With bad_data = refuse the first sample that has none is an error."""
    stored = Stored(Folder(Path(opts.output_dir, "cache", "prompts")), teacher_key(models, opts))
    views = [view for sample in found for view in sample.views()]
    missing = [view for view in views if view not in stored]
    wrong: list[Bad] = []
    if missing:
        host.release(models)  # the text encoders make room for the teacher, and come back when they are needed
        parts.place(host.place(models).device)
    with tqdm(total=len(views), initial=len(views) - len(missing), desc="make latents", unit="latent") as bar:
        for batch in chunks(missing, opts.train_batch_size):
            wrong += keep(stored, batch, lambda views: make(models, parts, views, encoded, uncond))
            if opts.bad_data == "refuse":
                settle(wrong, len(found), opts)
            bar.update(len(batch))
    return stored, wrong
