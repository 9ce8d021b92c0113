"""Contact sheets: pictures in labelled rows and columns, drawn so that a node 500 pixels wide still shows the words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LONGEST = 2400  # pixels of the sheet's longer side, at most
SMALLEST = 160  # pixels that a picture is wide at least, unless LONGEST forbids it: smaller ones are enlarged
INK, FAINT, FRAME, PAPER = "#1a1a1a", "#8a8a8a", "#dddddd", "#ffffff"

# In widths of a picture.
LETTER = 1 / 8
LINE = 1.25 * LETTER
GAP = 0.05


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture [H, W, 3] in [0, 1] with lines of text below it; without a picture a dash stands there."""

    picture: Tensor | None = None
    caption: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of the sheet: lines of text at its left, and a tile for each column."""

    label: Sequence[str]
    tiles: Sequence[Tile]


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """matplotlib's own letters, as in this pack's other drawings."""
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")), size)


def breadth(lines: Sequence[str]) -> float:
    """Of the longest of bold lines, in widths of a picture."""
    return LETTER * max(font(100, True).getlength(line) for line in lines) / 100


class Layout:
    """Where everything is, in pixels: all follows from how wide a picture is."""

    def __init__(self, headings: Sequence[str], strips: Sequence[Strip]):
        tiles = [tile for strip in strips for tile in strip.tiles]
        height, width = next(tile.picture.shape[:2] for tile in tiles if tile.picture is not None)
        self.left = breadth([line for strip in strips for line in strip.label]) + 3 * GAP
        self.top = LINE + 2 * GAP
        self.tall = height / width
        self.wide = max(1.0, breadth(headings) + GAP)
        self.pitch = self.tall + max(len(tile.caption) for tile in tiles) * LINE + 3 * GAP
        across = self.left + len(headings) * (self.wide + GAP) + GAP
        down = self.top + len(strips) * self.pitch
        self.unit = max(1, min(max(width, SMALLEST), int(LONGEST / max(across, down))))
        self.size = (round(across * self.unit), round(down * self.unit))

    def place(self, column: int, row: int) -> tuple[int, int]:
        """The upper left corner of a picture."""
        x = self.left + column * (self.wide + GAP) + (self.wide - 1) / 2
        return round(x * self.unit), round((self.top + row * self.pitch) * self.unit)

    def letters(self, bold: bool = False) -> ImageFont.FreeTypeFont:
        return font(max(1, round(LETTER * self.unit)), bold)

    def picture(self, picture: Tensor) -> Image.Image:
        """[H, W, 3] in [0, 1] in the size that it has on the sheet."""
        pixels = (picture.float().cpu().clamp(0, 1) * 255).round().byte().numpy()
        return Image.fromarray(pixels).resize(
            (self.unit, max(1, round(self.tall * self.unit))), Image.Resampling.LANCZOS
        )


def put_tile(canvas: Image.Image, layout: Layout, tile: Tile, corner: tuple[int, int]) -> None:
    """The picture and its caption, or a dash where it would be."""
    (x, y), unit = corner, layout.unit
    draw, middle = ImageDraw.Draw(canvas), x + unit // 2
    if tile.picture is None:
        draw.text((middle, y + layout.tall * unit / 2), "\N{EM DASH}", FAINT, layout.letters(), anchor="mm")
    else:
        canvas.paste(layout.picture(tile.picture), corner)
    draw.rectangle((x - 1, y - 1, x + unit, y + round(layout.tall * unit)), outline=FRAME)
    for i, line in enumerate(tile.caption):
        draw.text((middle, y + (layout.tall + GAP + i * LINE) * unit), line, INK, layout.letters(), anchor="ma")


def put_label(canvas: Image.Image, layout: Layout, lines: Sequence[str], row: int) -> None:
    """Left of a row, in the middle of its height; the first line is bold."""
    _, y = layout.place(0, row)
    y += (layout.tall - len(lines) * LINE) / 2 * layout.unit
    for i, line in enumerate(lines):
        at = (2 * GAP * layout.unit, y + i * LINE * layout.unit)
        ImageDraw.Draw(canvas).text(at, line, INK, layout.letters(i == 0), anchor="la")


def draw(headings: Sequence[str], strips: Sequence[Strip]) -> Tensor:
    """The sheet [H, W, 3] in [0, 1], below LONGEST pixels on its longer side.

    Every strip has a tile for each heading; all pictures are of one size, and there is one at least.
    """
    layout = Layout(headings, strips)
    canvas = Image.new("RGB", layout.size, PAPER)
    for column, heading in enumerate(headings):
        x, _ = layout.place(column, 0)
        at = (x + layout.unit // 2, GAP * layout.unit)
        ImageDraw.Draw(canvas).text(at, heading, INK, layout.letters(True), anchor="ma")
    for row, strip in enumerate(strips):
        put_label(canvas, layout, strip.label, row)
        for column, tile in enumerate(strip.tiles):
            put_tile(canvas, layout, tile, layout.place(column, row))
    return torch.from_numpy(np.asarray(canvas).astype(np.float32) / 255)
