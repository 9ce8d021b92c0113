"""Contact sheets of sample pictures: a row for each prompt, its words above it, under each picture what made it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

INK, FRAME, PAPER = "#1a1a1a", "#dddddd", "#ffffff"
LETTER, LINE, GAP = 16, 22, 12  # in pixels: size of the letters, height of a line, space around pictures
SMALLEST, LARGEST = 192, 512  # of a picture's longer side
NARROWEST, WORDS = 600, 2  # width of a sheet at least, and lines of a prompt at most


@dataclass(frozen=True, eq=False)
class Row:
    """A prompt and its pictures [H, W, 3] in [0, 1], all of one size, by what made each."""

    text: str
    pictures: dict[str, Tensor]


def counted(steps: int) -> str:
    """A number of steps in words.

    >>> counted(1), counted(4)
    ('1 step', '4 steps')
    """
    return f"{steps} step{'' if steps == 1 else 's'}"


@cache
def font(bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own letters, which know most alphabets."""
    name = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(findfont(name), LETTER)


def scaled(picture: Tensor) -> Image.Image:
    """The picture in the size that it has on the sheet."""
    pixels = (picture.float().cpu().clamp(0, 1) * 255).round().byte().numpy()
    longer = max(picture.shape[:2])
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)


class Strip:
    """A row, laid out: its tiles, their labels, and the words above them."""

    def __init__(self, row: Row):
        self.tiles = {label: scaled(picture) for label, picture in row.pictures.items()}
        first = next(iter(self.tiles.values()))
        self.pitch = GAP + max(first.width, *(round(font().getlength(label)) for label in self.tiles))
        self.width = max(GAP + self.pitch * len(self.tiles), NARROWEST)
        across = int(self.width / font(bold=True).getlength("n"))
        self.words = textwrap.wrap(row.text, across, max_lines=WORDS, placeholder=" ...") or ["(no words)"]
        self.top = GAP + len(self.words) * LINE
        self.height = self.top + first.height + LINE

    def put(self, canvas: Image.Image, top: int) -> None:
        """Draw it, its upper edge at `top`."""
        draw = ImageDraw.Draw(canvas)
        for i, line in enumerate(self.words):
            draw.text((GAP, top + GAP // 2 + i * LINE), line, INK, font(bold=True))
        for i, (label, tile) in enumerate(self.tiles.items()):
            x, y = GAP + i * self.pitch, top + self.top
            draw.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=FRAME)
            canvas.paste(tile, (x, y))
            draw.text((x, y + tile.height + 2), label, INK, font())


def draw(title: str, rows: Sequence[Row]) -> Image.Image:
    """The sheet, as wide and high as its pictures need."""
    strips = [Strip(row) for row in rows]
    width = max(round(font().getlength(title)) + GAP, *(strip.width for strip in strips)) + GAP
    top = LINE + GAP
    canvas = Image.new("RGB", (width, top + sum(strip.height for strip in strips) + GAP), PAPER)
    ImageDraw.Draw(canvas).text((GAP, GAP), title, INK, font())
    for strip in strips:
        strip.put(canvas, top)
        top += strip.height
    return canvas
