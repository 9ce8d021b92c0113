"""Fetch Fluent Emoji 3D (MIT) and lay it out as a kohya folder of captioned 128x128 pictures on white.

    python -m demo.dataset            # writes demo/data/1_emoji/*.png + *.txt and demo/data/SOURCES.json

Flags, skin-tone variants and emoji without a picture are left out. The pictures come through the npm client, so
that its own registry settings hold; they are fetched, never committed.
"""

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

PICTURES = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "unicode-emoji-json@0.9.0"
SIZE = 128
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
    """Read one picture with alpha and lay it on white at SIZE x SIZE."""
    image = Image.open(picture).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def make(folder: Path = FOLDER) -> int:
    """Write the whole dataset below `folder`, at once or not at all; returns the number of pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = fetch_package(PICTURES, Path(scratch, "pictures"))
        names = fetch_package(NAMES, Path(scratch, "names"))
        staged = Path(scratch, "1_emoji")
        staged.mkdir()
        pairs = [(code, text) for code, text in captions(names).items() if (pictures / f"assets/{code}.webp").exists()]
        for code, text in tqdm(pairs, desc="emoji", unit="picture"):
            on_white(pictures / f"assets/{code}.webp").save(staged / f"{code}.png")
            (staged / f"{code}.txt").write_text(text + "\n", encoding="utf-8")
        licences = {
            package: json.loads((place / "package.json").read_text(encoding="utf-8"))["license"]
            for package, place in ((PICTURES, pictures), (NAMES, names))
        }
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(staged, folder / "1_emoji")
    sources = {"packages": licences, "pictures": len(pairs), "size": SIZE}
    (folder / "SOURCES.json").write_text(json.dumps(sources, indent=2) + "\n", encoding="utf-8")
    return len(pairs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    folder = parser.parse_args().folder
    print(f"{make(folder)} captioned pictures in {folder}")
