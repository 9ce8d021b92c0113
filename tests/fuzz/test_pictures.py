"""Picture files of every kind, cut off, damaged and lying about their size: a broken one is never trained on."""

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fuzz.mutations import damaged, seeds, truncated
from fuzz.rule import refused_or_right
from PIL import Image

from training.data import pictures, sources
from training.data.bad import Bad
from training.data.buckets import fit
from training.data.samples import Sample
from training.data.survey import examine
from training.options import Options

pytestmark = pytest.mark.slow


def noise(mode: str = "RGB", size: tuple[int, int] = (24, 17)) -> Image.Image:
    """A picture without two like pixels, so that nothing that is lost goes unseen."""
    image = Image.effect_noise(size, 120)
    return Image.merge("RGBA", [image, image.rotate(90), image.rotate(180), image]).convert(mode)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


DEEP = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (17, 24)).astype(np.uint16))
FRAMES = {"save_all": True, "append_images": [noise().rotate(180)]}
# Name -> (the picture, its format, how it is saved).
KINDS: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    **{f"png {mode}": (noise(mode), "png", {}) for mode in ("RGB", "RGBA", "L", "LA", "1")},
    "png palette": (noise().quantize(16), "png", {"transparency": 3}),
    "png 16 bits": (DEEP, "png", {}),
    "png animated": (noise(), "png", FRAMES),
    "png one pixel": (noise(size=(1, 1)), "png", {}),
    "png narrow": (noise(size=(200, 1)), "png", {}),
    **{f"jpeg {mode}": (noise(mode), "jpeg", {}) for mode in ("RGB", "L", "CMYK")},
    "jpeg progressive": (noise(size=(64, 48)), "jpeg", {"progressive": True}),
    "jpeg turned": (noise(), "jpeg", {"exif": turned(6)}),
    "jpeg wrong turn": (noise(), "jpeg", {"exif": turned(99)}),
    "webp": (noise(), "webp", {}),
    "webp lossless": (noise("RGBA"), "webp", {"lossless": True}),
    "webp animated": (noise(), "webp", FRAMES),
    "bmp": (noise(), "bmp", {}),
    "bmp palette": (noise().quantize(16), "bmp", {}),
    "gif": (noise().quantize(16), "gif", FRAMES),
    "tiff": (noise("CMYK"), "tiff", {}),
    "tiff deep": (DEEP, "tiff", {}),
}


@cache
def file_of(kind: str) -> bytes:
    image, ending, options = KINDS[kind]
    made = BytesIO()
    image.save(made, ending, **options)
    return made.getvalue()


@cache
def whole(kind: str) -> bytes:
    return pictures.decode(file_of(kind)).tobytes()


def check_picture(image: Image.Image, wanted: bytes | None = None) -> None:
    """Of three colours, and as the undamaged one where damage cannot go unseen."""
    assert image.mode == "RGB"
    assert min(image.size) >= 1
    assert wanted is None or image.tobytes() == wanted
    cut = fit(image.size, Options(resolution="16"))
    assert pictures.window(image, cut, cut.centre).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_was_cut_off_is_whole_or_refused(kind):
    for chance in seeds(f"picture cut {kind}", 100):
        content = truncated(file_of(kind), chance)
        refused_or_right(
            "picture",
            lambda content=content: pictures.decode(content),
            lambda image: check_picture(image, whole(kind)),
            ["is not a readable picture: "],
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_picture_is_a_picture_or_refused(kind):
    """PNG has a sum of each part; other formats cannot tell a flipped bit."""
    for chance in seeds(f"picture {kind}", 180):
        content = damaged(file_of(kind), chance)
        refused_or_right(
            "picture",
            lambda content=content: pictures.decode(content),
            lambda image: check_picture(image, whole(kind) if kind.startswith("png") else None),
            ["is not a readable picture: "],
        )


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(2**27), 9)
BOMBS = {
    "huge": png(100_000, 100_000, chunk(b"IDAT", ZEROS)),
    "wide": png(2**31 - 1, 1, chunk(b"IDAT", ZEROS)),
    "larger than its data": png(4000, 4000, chunk(b"IDAT", zlib.compress(bytes(1000)))),
    "text": png(1, 1, chunk(b"zTXt", b"a\0\0" + ZEROS), chunk(b"IDAT", zlib.compress(bytes(4)))),
    "profile": png(1, 1, chunk(b"iCCP", b"a\0\0" + ZEROS), chunk(b"IDAT", zlib.compress(bytes(4)))),
    "no size": png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
    "gif": b"GIF89a\xff\xff\xff\xff\xf0\0\0" + file_of("gif")[13:],
    "bmp": file_of("bmp")[:18] + struct.pack("<ii", 2**30, 2**30) + file_of("bmp")[26:],
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_picture_that_would_fill_the_memory_is_refused_at_once(content):
    refused_or_right("picture", lambda: pictures.decode(content), check_picture, ["is not a readable picture: "])


NOT_PICTURES = (
    b"",
    b"\0" * 100,
    b"%PDF-1.7",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"PK\3\4",
    b"\x89PNG",
    b"RIFF",
)


def any_file(chance: Random) -> bytes:
    kind = chance.choice(sorted(KINDS))
    return chance.choice((lambda: chance.choice(NOT_PICTURES), lambda: damaged(file_of(kind), chance)))()


def examined(job: tuple[Path, sources.Subset]) -> Sample:
    """As the trainer looks at a picture; what it puts into its list of bad ones is raised."""
    found = examine(job)
    if isinstance(found, Bad):
        raise ValueError(found)
    return found


def test_a_bad_picture_of_a_folder_is_named(tmp_path):
    subset = sources.Subset(tmp_path, 1, Options(resolution="16"), class_tokens="cat")
    for chance in seeds("picture folder", 150):
        path = tmp_path / f"a{chance.choice(sorted(sources.ENDINGS))}"
        path.write_bytes(any_file(chance))
        refused_or_right(
            "picture of a folder",
            lambda path=path: examined((path, subset)),
            lambda sample: sample.views()[0].key,
            [str(path), "is not a readable picture"],
        )
