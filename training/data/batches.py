"""Which samples a batch holds, and what is drawn for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..draws import generator
from ..host import Cond, Size
from . import captions
from .buckets import Pair
from .captions import shuffled
from .samples import Sample, View
from .survey import Survey
from .texts import Texts
from .threads import chunks


@dataclass(frozen=True)
class Batch:
    """Some samples of a global batch, all of one bucket."""

    number: int  # of the global batch, 0, 1, ... over all epochs
    places: list[int]  # of its samples within the global batch: what randomness hangs on, with the seed and `number`
    latents: Tensor  # [B, C, h, w] float32, on the CPU
    conds: list[Cond]
    sizes: list[Size]


def by_bucket(samples: Sequence[Sample]) -> dict[Pair, list[int]]:
    """Indices of the samples, each as often as it repeats, by their buckets."""
    found: dict[Pair, list[int]] = {}
    for i, sample in enumerate(samples):
        found.setdefault(sample.fit.bucket, []).extend([i] * sample.repeats)
    return found


def epoch_of(buckets: dict[Pair, list[int]], seed: int, epoch: int, size: int) -> list[list[int]]:
    """All batches of an epoch, shuffled, each of `size` samples of one bucket.

    A bucket's last batch is filled up with the first samples of its new order.
    """
    made: list[list[int]] = []
    for bucket in sorted(buckets):
        order = shuffled(buckets[bucket], generator(seed, "samples", epoch, *bucket))
        short = -len(order) % size
        more = (order * (short // len(order) + 1))[:short]
        made += map(list, chunks(order + more, size))
    return shuffled(made, generator(seed, "batches", epoch))


class Dataset:
    """Everything that training draws from. All depends on the seed and the number of a global batch alone."""

    def __init__(
        self, found: Survey, uncond: Cond, latents: Callable[[Sequence[View]], Tensor], texts: Texts, seed: int
    ):
        self.survey, self.samples, self.uncond = found, found.samples, uncond
        self.latents, self.texts, self.seed = latents, texts, seed
        self.buckets = by_bucket(self.samples)
        self.epoch = lru_cache(2)(lambda epoch, size: epoch_of(self.buckets, seed, epoch, size))

    def lines(self) -> list[str]:
        """What there is, for a person to read."""
        return self.survey.lines()

    def batches_per_epoch(self, size: int) -> int:
        """Number of global batches of `size` samples in an epoch."""
        return sum(-(-len(indices) // size) for indices in self.buckets.values())

    def view(self, sample: Sample, number: int, place: int) -> View:
        """How a sample is seen this time: mirrored or not, cut in the middle or anywhere."""
        flipped, corner = False, sample.fit.centre
        if sample.opts.flip_aug:
            flipped = bool(torch.rand((), generator=generator(self.seed, "flip", number, place)) < 0.5)
        if sample.opts.random_crop:
            right, down = torch.rand(2, generator=generator(self.seed, "crop", number, place)).tolist()
            corner = int(right * (sample.fit.room[0] + 1)), int(down * (sample.fit.room[1] + 1))
        return View(sample, corner, flipped)

    def batch(self, number: int, size: int, own: slice) -> Batch:
        """The samples `own` of the global batch `number`, which has `size`.

        Raises ValueError for a picture, or a cache, that cannot be read any more.
        """
        epoch, i = divmod(number, self.batches_per_epoch(size))
        places = list(range(size))[own]
        samples = [self.samples[self.epoch(epoch, size)[i][place]] for place in places]
        said = [
            captions.vary(sample.caption, sample.opts, epoch, generator(self.seed, "caption", number, place))
            for sample, place in zip(samples, places, strict=True)
        ]
        views = [self.view(sample, number, place) for sample, place in zip(samples, places, strict=True)]
        conds = {text: self.texts(text) for text in set(said)}
        sizes = [view.size for view in views]
        return Batch(number, places, self.latents(views), [conds[text] for text in said], sizes)
