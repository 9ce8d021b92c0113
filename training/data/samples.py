"""What one sample is, and one view of it: the pixels that a latent is made from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..host import Size
from ..options import Options
from .buckets import Fit, Pair
from .cache import key

MOST = 100_000_000  # samples of an epoch, whose order is kept in memory


def check_epoch(samples: int) -> None:
    """Raises ValueError for more samples than an epoch can have."""
    if samples > MOST:
        raise ValueError(f"an epoch has at most {MOST:,} samples, got {samples:,} with all repeats")


@dataclass(frozen=True)
class Sample:
    """A picture, or a latent that the teacher makes for a prompt, and its caption."""

    name: str  # what errors call it
    caption: str
    repeats: int  # how often an epoch shows it
    opts: Options  # as they hold for its subset
    size: Pair  # (width, height) of the picture in pixels
    fit: Fit
    content: str  # differs for what differs
    path: Path | None = None

    def views(self) -> list["View"]:
        """All that are shown of it when none is cut at random."""
        return [View(self, self.fit.centre, flipped) for flipped in ((False, True) if self.opts.flip_aug else (False,))]


@dataclass(frozen=True)
class View:
    """A sample, cut at `corner` of its scaled picture, and perhaps mirrored."""

    sample: Sample
    corner: Pair
    flipped: bool

    @cached_property
    def key(self) -> str:
        """Of the pixels: the same wherever, and under whatever name, the same picture is."""
        return key(self.sample.content, self.sample.fit.scaled, self.sample.fit.bucket, self.corner, self.flipped)

    @property
    def size(self) -> Size:
        """As SDXL is told. Of a mirrored picture, the window's corner is that in the mirrored whole."""
        (x, y), room = self.corner, self.sample.fit.room
        return Size(*self.sample.size, room[0] - x if self.flipped else x, y, *self.sample.fit.bucket)
