"""Contact sheets: labelled pictures on white."""

import textwrap

from PIL import Image, ImageDraw
from torch import Tensor

SIZE = 128  # of a picture, in pixels
LABEL = 150  # width of the row labels
CAPTION = 30  # height of two lines of caption


def tile(picture: Tensor) -> Image.Image:
    """[H, W, 3] in [0, 1] as a picture."""
    return Image.fromarray((picture.cpu() * 255).round().byte().numpy())


def text(draw: ImageDraw.ImageDraw, x: int, y: int, words: str, width: int, lines: int = 3) -> None:
    """Wrapped text, at most `lines` of it."""
    draw.text((x + 4, y), "\n".join(textwrap.wrap(words, width)[:lines]), fill="black")


def rows(labelled: dict[str, Tensor], captions: list[str]) -> Image.Image:
    """A labelled row for every entry [n, H, W, 3], under the captions of its columns."""
    canvas = Image.new("RGB", (LABEL + SIZE * len(captions), CAPTION + SIZE * len(labelled)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, caption in enumerate(captions):
        text(draw, LABEL + SIZE * i, 2, caption, 20, 2)
    for j, (label, pictures) in enumerate(labelled.items()):
        text(draw, 0, CAPTION + SIZE * j + 50, label, 22)
        for i, picture in enumerate(pictures):
            canvas.paste(tile(picture), (LABEL + SIZE * i, CAPTION + SIZE * j))
    return canvas
