"""Pictures as latents: once, into a store, or anew at every step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .. import host
from ..options import Options
from . import pictures
from .bad import Bad
from .cache import Folder, Store, key, weights_key
from .samples import Sample, View
from .threads import ahead, chunks

NOT_FINITE = "has a latent that is not finite: the VAE cannot encode it"


def pixels(view: View) -> Tensor:
    """[H, W, 3] in [0, 1]. Raises ValueError for a picture that cannot be read any more."""
    assert view.sample.path is not None, "only pictures have pixels"
    try:
        image = pictures.decode(view.sample.path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{view.sample.path} {error}") from error
    return pictures.window(image, view.sample.fit, view.corner, view.flipped)


@dataclass(frozen=True)
class Stored:
    """Latents of views, out of a store."""

    store: Store
    maker: str = ""  # key of what made them

    def key(self, view: View) -> str:
        return key(view.key, self.maker)

    def __contains__(self, view: View) -> bool:
        return self.key(view) in self.store

    def put(self, view: View, latent: Tensor) -> None:
        """Keep a latent [C, h, w]."""
        self.store[self.key(view)] = {"latent": latent.clone()}

    def __call__(self, views: Sequence[View]) -> Tensor:
        """[B, C, h, w]."""
        return torch.stack([self.store[self.key(view)]["latent"] for view in views])


@dataclass(frozen=True)
class Live:
    """Latents of views, encoded whenever they are asked for."""

    models: host.Models
    opts: Options

    def __call__(self, views: Sequence[View]) -> Tensor:
        """[B, C, h, w]. Raises ValueError that names a picture which cannot be read or encoded."""
        batches, threads = chunks(views, self.opts.vae_batch_size), self.opts.max_data_loader_n_workers
        made = [host.encode_pictures(self.models, torch.stack(batch)) for batch in ahead(pixels, batches, threads)]
        latents = torch.cat(made)
        if wrong := [view for view, latent in zip(views, latents, strict=True) if not latent.isfinite().all()]:
            raise ValueError(f"{wrong[0].sample.name} {NOT_FINITE}")
        return latents


def batched(views: Iterable[View], size: int) -> list[Sequence[View]]:
    """The views in batches of one bucket each."""
    by_bucket = sorted(views, key=lambda view: view.sample.fit.bucket)
    groups = [list(group) for _, group in groupby(by_bucket, lambda view: view.sample.fit.bucket)]
    return [batch for group in groups for batch in chunks(group, size)]


def fill(stored: Stored, models: host.Models, samples: Sequence[Sample], opts: Options) -> list[Bad]:
    """Encode what the store does not hold yet; returns the pictures that cannot be."""
    views = {stored.key(view): view for sample in samples for view in sample.views()}
    missing = [view for view in views.values() if view not in stored]
    batches, bad = batched(missing, opts.vae_batch_size), set()
    with tqdm(total=len(views), initial=len(views) - len(missing), desc="encode pictures", unit="picture") as bar:
        for batch, read in zip(batches, ahead(pixels, batches, opts.max_data_loader_n_workers), strict=True):
            for view, latent in zip(batch, host.encode_pictures(models, torch.stack(read)), strict=True):
                if latent.isfinite().all():
                    stored.put(view, latent)
                else:
                    bad.add(view.sample.content)
            bar.update(len(batch))
    return [Bad(sample.name, NOT_FINITE) for sample in samples if sample.content in bad]


def latents(models: host.Models, samples: Sequence[Sample], opts: Options) -> tuple[Stored | Live, list[Bad]]:
    """Where the samples' latents come from, as the options say, and the samples that have none."""
    if not opts.cache_latents:
        return Live(replace(models, clip=None), opts), []
    stored = Stored({})
    if opts.cache_latents_to_disk:
        maker = key(weights_key(models.vae.first_stage_model), models.architecture, host.downscale(models))
        stored = Stored(Folder(Path(opts.output_dir, "cache", "latents")), maker)
    return stored, fill(stored, models, samples, opts)
