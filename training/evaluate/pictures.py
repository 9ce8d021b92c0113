"""Pictures on disk: made where they are missing, and read back for the metrics.

A picture's file holds the key of the settings that made it, so neither is ever without the other: one that is there
with the same key is used again, any other is made anew.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from tqdm import tqdm

from tcd.metrics import to_bytes

from .. import host
from ..data.cache import key
from ..data.pictures import decode
from ..data.sources import ENDINGS
from ..data.threads import chunks
from ..save import replace as put
from .loras import Loaded
from .options import EvaluateOptions
from .prompts import Prompt, Scenes
from .rows import Row

KEY, EVALUATIONS = "tcd.key", "tcd.evaluations"
FILES = ("pretrained_model_name_or_path", "vae", "text_encoders", "base_weights")  # of the model


@cache
def digest(path: Path, modified: int) -> str:
    """Of a file's content, read again when it was modified."""
    made = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(2**24):
            made.update(part)
    return made.hexdigest()


def key_of(opts: EvaluateOptions, row: Row, prompt: Prompt) -> str:
    """Of everything that a picture follows from."""
    files = {name: getattr(opts, name) for name in FILES} | {"lora": str(row.lora.path) if row.lora else ""}
    paths = [path for given in files.values() for path in ([given] if isinstance(given, str) else given)]
    contents = [digest(Path(path), Path(path).stat().st_mtime_ns) if path else "" for path in paths]
    model = {name: value for name, value in vars(opts.model).items() if name not in FILES}
    return key(contents, sorted(model.items()), replace(row, lora=None), prompt.text, prompt.seed)


def marks(path: Path) -> dict[str, Any]:
    """What a picture's file says of itself; nothing where it is missing or broken."""
    try:
        with Image.open(path) as image:
            return dict(image.info)
    except (OSError, ValueError, SyntaxError):
        return {}


@dataclass(frozen=True)
class Pictures:
    """Picture files, read anew whenever wanted, as batches [B, H, W, 3] in [0, 1] of one size (width, height)."""

    paths: tuple[Path, ...]
    size: tuple[int, int]
    batch: int = 16

    def __iter__(self) -> Iterator[Tensor]:
        for paths in chunks(self.paths, self.batch):
            yield torch.stack([read(path, self.size) for path in paths])


def read(path: Path, size: tuple[int, int]) -> Tensor:
    """One picture, scaled to cover `size` and cut in the middle. Raises ValueError for a file that is none."""
    try:
        image = decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} {error}") from None
    fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).astype(np.float32) / 255)


def real(opts: EvaluateOptions) -> Pictures:
    """The pictures of `real_data` and its subfolders. Raises ValueError for fewer than two, or one that is broken."""
    found = sorted(path for path in Path(opts.real_data).rglob("*") if path.suffix.lower() in ENDINGS)
    if len(found) < 2:
        raise ValueError(f"real_data must be a folder of two pictures at least, got {opts.real_data!r}")
    for path in found:
        read(path, (1, 1))
    return Pictures(tuple(found), opts.size)


class Folder:
    """The pictures of one row."""

    def __init__(self, opts: EvaluateOptions, row: Row):
        self.opts, self.row, self.path = opts, row, Path(opts.output_dir, row.name)

    def file(self, prompt: Prompt) -> Path:
        return self.path / f"{prompt.index:05d}.png"

    def pictures(self, prompts: Iterable[Prompt]) -> Pictures:
        return Pictures(tuple(map(self.file, prompts)), self.opts.size)

    def missing(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Those whose pictures are not there, or were made otherwise."""
        return [p for p in prompts if marks(self.file(p)).get(KEY) != key_of(self.opts, self.row, p)]

    def evaluations(self, prompt: Prompt) -> float:
        """How often the network was evaluated for the picture."""
        return float(marks(self.file(prompt))[EVALUATIONS])

    def make(self, parts: Loaded, scenes: Scenes, prompts: Sequence[Prompt]) -> None:
        """Sample what is missing."""
        wanted = self.missing(prompts)
        with tqdm(total=len(prompts), initial=len(prompts) - len(wanted), desc=self.row.label) as bar:
            for batch in chunks(wanted, self.opts.batch_size):
                self.sample(parts, scenes, batch)
                bar.update(len(batch))

    def sample(self, parts: Loaded, scenes: Scenes, batch: Sequence[Prompt]) -> None:
        before = parts.net.evaluated
        seeds = [prompt.seed for prompt in batch]
        latents = self.row.latents(parts, *scenes.of(batch), scenes.noise(batch), seeds)
        count = (parts.net.evaluated - before) / len(batch)
        for prompt, pixels in zip(batch, to_bytes(host.decode_latents(scenes.models, latents)), strict=True):
            info = PngInfo()
            info.add_text(KEY, key_of(self.opts, self.row, prompt))
            info.add_text(EVALUATIONS, str(count))
            image = Image.fromarray(pixels.numpy())
            put(self.file(prompt), lambda path, image=image, info=info: image.save(path, "PNG", pnginfo=info))
