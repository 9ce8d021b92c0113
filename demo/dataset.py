"""Fetch Fluent Emoji 3D (MIT) and lay it out as a kohya folder of captioned 128x128 pictures on white.

    python -m demo.dataset            # writes demo/data/1_emoji/*.png + *.txt and demo/data/SOURCES.json

Every emoji is there VIEWS times: once upright, then turned, shrunk and moved a little. With one picture for a caption,
a good model is a look-up table: its first guess is the picture, and there is no trajectory to distil. The views give
every caption a distribution.

Flags, skin-tone variants and emoji without a picture are left out. The pictures come through the npm client, so
that its own registry settings hold; they are fetched, never committed.
"""

import argparse
import json
import math
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm import tqdm

PICTURES = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "unicode-emoji-json@0.9.0"
SIZE = 128
VIEWS = 8
FOLDER = Path(__file__).parent / "data"
PUNCTUATION = str.maketrans({chr(0x2019): "'", chr(0x201C): '"', chr(0x201D): '"', chr(0xF1): "n"})


def fetch_package(package: str, into: Path) -> Path:
    """Download and unpack one npm package; returns its folder. Raises RuntimeError that says what to do."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is needed to fetch the emoji: install Node.js, or copy demo/data from another machine")
    into.mkdir(parents=True)
    done = subprocess.run([npm, "pack", "--silent", package], cwd=into, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"npm could not fetch {package}: {done.stderr.strip() or done.stdout.strip()}")
    with tarfile.open(next(into.glob("*.tgz"))) as archive:
        archive.extractall(into, filter="data")
    return into / "package"


def captions(names: Path) -> dict[str, str]:
    """Code points joined by "-" -> caption, in Unicode's own order, without flags."""
    table = json.loads((names / "data-by-emoji.json").read_text(encoding="utf-8"))
    return {
        "-".join(f"{ord(char):04x}" for char in emoji): entry["name"].translate(PUNCTUATION)
        for emoji, entry in table.items()
        if entry["group"] != "Flags"
    }


def on_white(picture: Path) -> Image.Image:
    """Read one picture with alpha and lay it on white."""
    image = Image.open(picture).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def turned(image: Image.Image, draw: random.Random) -> Image.Image:
    """Turned by at most 6 degrees, shrunk by at most 12 percent, a little slanted, and moved within the room so won."""
    angle, scale = math.radians(draw.uniform(-6, 6)), draw.uniform(0.88, 1)
    slant, room = draw.uniform(-0.05, 0.05), (1 - scale) / 2
    right, down = (draw.uniform(-room, room) * side for side in image.size)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    rows = ((cos, sin + slant * cos), (-sin, cos - slant * sin))  # from the new pixel, about the middle, to the old one
    x, y = (side / 2 for side in image.size)
    affine = [
        part
        for (a, b), old in zip(rows, (x, y), strict=True)
        for part in (a, b, old - a * (x + right) - b * (y + down))
    ]
    return image.transform(image.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor="white")


def views(code: str, picture: Path) -> Iterator[tuple[str, Image.Image]]:
    """(file name, SIZE x SIZE picture): the upright one, named by the code alone, then the turned, always the same."""
    image, draw = on_white(picture), random.Random(code)
    for i in range(VIEWS):
        view = turned(image, draw) if i else image
        yield f"{code}_{i}" if i else code, view.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def make(folder: Path = FOLDER) -> int:
    """Write the whole dataset below `folder`, at once or not at all; returns the number of pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = fetch_package(PICTURES, Path(scratch, "pictures"))
        names = fetch_package(NAMES, Path(scratch, "names"))
        staged = Path(scratch, "1_emoji")
        staged.mkdir()
        pairs = [(code, text) for code, text in captions(names).items() if (pictures / f"assets/{code}.webp").exists()]

        def write(pair: tuple[str, str]) -> None:
            code, text = pair
            for name, view in views(code, pictures / f"assets/{code}.webp"):
                view.save(staged / f"{name}.png")
                (staged / f"{name}.txt").write_text(text + "\n", encoding="utf-8")

        with ThreadPoolExecutor() as pool:  # Pillow turns and shrinks outside the interpreter's lock
            list(tqdm(pool.map(write, pairs), total=len(pairs), desc="emoji", unit="emoji"))
        licences = {
            package: json.loads((place / "package.json").read_text(encoding="utf-8"))["license"]
            for package, place in ((PICTURES, pictures), (NAMES, names))
        }
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(staged, folder / "1_emoji")
    sources = {"packages": licences, "emoji": len(pairs), "views": VIEWS, "size": SIZE}
    (folder / "SOURCES.json").write_text(json.dumps(sources, indent=2) + "\n", encoding="utf-8")
    return len(pairs) * VIEWS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    folder = parser.parse_args().folder
    print(f"{make(folder)} captioned pictures in {folder}")
