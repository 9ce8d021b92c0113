"""Picture files of any kind as pixels: upright, in three colours of eight bits."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .buckets import Fit, Pair


def of_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, scaled: Pillow's own conversion clips."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """What is transparent becomes white, as in a viewer; black would leave dark fringes around cut-out figures."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def decode(content: bytes) -> Image.Image:
    """A whole picture file, decoded to its last byte: upright, RGB; of an animation, the first frame.

    Raises ValueError for one that cannot be read.
    """
    try:
        with Image.open(BytesIO(content)) as opened:
            opened.verify()  # the sum of each part of a PNG, which Pillow does not look at while it decodes
        with Image.open(BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise ValueError("nothing says how bright its floating-point numbers are")
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = of_16_bits(image)
        elif image.has_transparency_data:
            image = on_white(image)
        return image.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("is not a readable picture: its format is not known") from None
    except Exception as error:  # decoders raise nearly anything on broken files; so do the limits on a picture's size
        raise ValueError(f"is not a readable picture: {error or type(error).__name__}") from error


def window(image: Image.Image, fit: Fit, corner: Pair, flipped: bool = False) -> Tensor:
    """The pixels [H, W, 3] in [0, 1] of the bucket at `corner` of the scaled picture, mirrored if asked for.

    Only the window is computed: a very narrow picture, scaled to cover its bucket, would be huge.
    """
    (x, y), (right, down) = corner, (corner[0] + fit.bucket[0], corner[1] + fit.bucket[1])
    across, along = image.width / fit.scaled[0], image.height / fit.scaled[1]
    box = (x * across, y * along, min(image.width, right * across), min(image.height, down * along))
    cut = image.resize(fit.bucket, Image.Resampling.LANCZOS, box)
    pixels = torch.from_numpy(np.asarray(cut).astype(np.float32) / 255)
    return pixels.flip(1) if flipped else pixels
