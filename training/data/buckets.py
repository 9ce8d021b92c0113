"""Aspect buckets, in kohya's meaning: which sizes there are, and how a picture becomes one of them.

Sizes are (width, height) in pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

from ..options import Options

Pair = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """A picture is scaled to `scaled`, and a window as large as `bucket` is cut out of it."""

    scaled: Pair
    bucket: Pair

    @property
    def room(self) -> Pair:
        """How far to the right and down the window may be."""
        return self.scaled[0] - self.bucket[0], self.scaled[1] - self.bucket[1]

    @property
    def centre(self) -> Pair:
        """Top left corner of the window in the middle."""
        return self.room[0] // 2, self.room[1] // 2


@lru_cache
def resolutions(size: Pair, least: int, most: int, step: int) -> list[Pair]:
    """All buckets of at most the area of `size`, whose sides are multiples of `step` from `least` to `most`.

    Raises ValueError where `size` itself is out of these limits, or no multiple is in them.

    >>> resolutions((128, 128), 64, 256, 64)
    [(64, 192), (64, 256), (128, 128), (192, 64), (256, 64)]
    """
    if min(size) < least or max(size) > most:
        raise ValueError(
            f"resolution {size[0]},{size[1]} must be between min_bucket_reso {least} and max_bucket_reso {most}"
        )
    area, square = size[0] * size[1], isqrt(size[0] * size[1]) // step * step
    highest = min(most, area // least) // step * step  # of a wider one the other side is below the least
    found = {(square, square)} if square >= least else set()
    for width in range(-(-least // step) * step, highest + 1, step):
        height = min(highest, area // width // step * step)
        if height >= least:
            found |= {(width, height), (height, width)}
    if not found:
        raise ValueError(
            f"no bucket of the area of {size[0]},{size[1]} has sides of a multiple of bucket_reso_steps {step} "
            f"between min_bucket_reso {least} and max_bucket_reso {most}"
        )
    return sorted(found)


def covering(picture: Pair, bucket: Pair) -> Pair:
    """The smallest size of the picture's aspect ratio that covers the bucket."""
    scale = max(bucket[0] / picture[0], bucket[1] / picture[1])
    return max(bucket[0], round(picture[0] * scale)), max(bucket[1], round(picture[1] * scale))


def nearest(picture: Pair, buckets: list[Pair]) -> Pair:
    """The bucket of the nearest width / height; the picture's own size where it is one."""
    aspect = picture[0] / picture[1]
    return picture if picture in buckets else min(buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def without_enlarging(picture: Pair, area: int, step: int) -> Fit:
    """A bucket made for the picture: its own size, or scaled down to the area, with sides cut to multiples of step.

    Of the two ways to scale, to a multiple in width or in height, the one that keeps more of the aspect ratio is taken.
    Raises ValueError for a picture that is smaller than a step.
    """

    def cut(size: Pair) -> Pair:
        return size[0] // step * step, size[1] // step * step

    width, height = scaled = picture
    if width * height > area:
        (w, _), (_, h) = cut((isqrt(area * width // height), step)), cut((step, isqrt(area * height // width)))
        ways = [way for way in ((h * width // height, h), (w, w * height // width)) if all(cut(way))]
        off = {way: abs(cut(way)[0] / cut(way)[1] - width / height) for way in ways}
        scaled = min(ways, key=off.__getitem__, default=(0, 0))
    if not all(cut(scaled)):
        raise ValueError(f"has {width} x {height} pixels: too few, or too narrow, for bucket_reso_steps {step}")
    return Fit(scaled, cut(scaled))


def fit(picture: Pair, opts: Options) -> Fit:
    """How a picture of this size is cut under these options. Raises ValueError where none of the buckets is for it."""
    if not opts.enable_bucket:
        return Fit(covering(picture, opts.size), opts.size)
    if opts.bucket_no_upscale:  # as with kohya, without the limits of min_bucket_reso and max_bucket_reso
        return without_enlarging(picture, opts.size[0] * opts.size[1], opts.bucket_reso_steps)
    limits = (opts.min_bucket_reso, opts.max_bucket_reso, opts.bucket_reso_steps)
    bucket = nearest(picture, resolutions(opts.size, *limits))
    return Fit(covering(picture, bucket), bucket)


def check(opts: Options, multiple: int = 8) -> None:
    """Raises ValueError where there are no buckets, or not of whole latent cells of `multiple` pixels a side."""
    name, sides = ("bucket_reso_steps", [opts.bucket_reso_steps]) if opts.enable_bucket else ("resolution", opts.size)
    if any(side % multiple for side in sides):
        raise ValueError(f"{name} must be a multiple of {multiple}, got {','.join(map(str, sides))}")
    if opts.enable_bucket and not opts.bucket_no_upscale:
        resolutions(opts.size, opts.min_bucket_reso, opts.max_bucket_reso, opts.bucket_reso_steps)
