"""Captioned pictures in kohya's folder layout, and the drawing of batches from them."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Sample:
    """One picture, its caption, and how often an epoch shows it."""

    picture: Path
    caption: str
    repeats: int


def find(folder: Path, caption_extension: str) -> list[Sample]:
    """All samples below `folder`, whose subfolders are named {repeats}_{name}. Raises ValueError where there are none,
    or where a picture has no caption."""
    samples = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        repeats = re.match(r"([1-9]\d*)_", place.name)
        if not repeats:
            raise ValueError(f"{place}: a picture folder is named {{repeats}}_{{name}}, from 1 on, such as 10_cat")
        for picture in sorted(path for path in place.iterdir() if path.suffix.lower() in PICTURES):
            caption = picture.with_suffix(caption_extension)
            if not caption.is_file():
                raise ValueError(f"{picture} has no caption: {caption.name} is missing")
            samples.append(Sample(picture, caption.read_text(encoding="utf-8").strip(), int(repeats[1])))
    if not samples:
        raise ValueError(f"no pictures ({', '.join(sorted(PICTURES))}) in the folders of {folder}")
    return samples


def open_picture(path: Path, size: int) -> Tensor:
    """One picture scaled and centre-cropped to [size, size, 3] in [0, 1]. Raises ValueError that names a bad file."""
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture: {error}") from error
    return torch.from_numpy(np.asarray(fitted).astype(np.float32) / 255)


@dataclass(frozen=True)
class Dataset:
    """Everything that a training step draws from, encoded once: latents [N, C, H, W], contexts [N, L, D]."""

    latents: Tensor
    contexts: Tensor
    uncond: Tensor  # [1, L, D]
    order: Tensor  # indices into the above, each as often as its picture repeats

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(latents [B, C, H, W], contexts [B, L, D]), drawn with replacement."""
        pick = self.order[torch.randint(len(self.order), (batch,), generator=generator)]
        return self.latents[pick], self.contexts[pick]
