"""Small datasets on the disk, options for them, and models that encode them without ComfyUI."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from training import host, options

DOWN = 8


def add(
    folder: Path,
    name: str,
    caption: str | None = "a cat",
    size: tuple = (64, 64),
    color: Any = "red",
    mode: str = "RGB",
) -> Path:
    """Write one picture of one colour, and its caption unless that is None."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(f" {caption}\n", encoding="utf-8")
    return folder / name


def opts_of(folder: Path, **named: Any) -> options.Options:
    """Options for the kohya folder `folder`/data, unless another source is named."""
    sources = {"train_data_dir", "dataset_config", "prompts"} & named.keys()
    source = {} if sources else {"train_data_dir": str(folder / "data")}
    made: dict[str, Any] = {"output_dir": str(folder / "output"), "resolution": "64"} | source | named
    values: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in made.items()}
    return options.Options(**values)


class Fake:
    """What stands for the host's functions: a latent cell is the mean of its pixels, a text its letters' sum."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.pictures: list[int] = []  # sizes of the batches that were encoded
        self.texts: list[str] = []
        self.broken: float | None = None  # a picture whose first pixel is this cannot be encoded
        self.models = host.Models(
            SimpleNamespace(model=SimpleNamespace(model_config=None, diffusion_model=nn.Linear(2, 2))),
            SimpleNamespace(cond_stage_model=nn.Linear(2, 2)),
            SimpleNamespace(first_stage_model=nn.Linear(2, 2)),
        )
        for name in ("encode_pictures", "encode_text"):
            patch.setattr(host, name, getattr(self, name))
        patch.setattr(host, "downscale", lambda models: DOWN)
        patch.setattr(host, "release", lambda models: models)
        patch.setattr(host, "place", lambda models: models)

    def encode_pictures(self, models: host.Models, pixels: Tensor) -> Tensor:
        assert models.vae is not None
        self.pictures.append(len(pixels))
        latents = nn.functional.avg_pool2d(pixels.movedim(-1, 1), DOWN)
        latents[pixels[:, 0, 0, 0] == self.broken] = torch.nan
        return latents

    def encode_text(self, models: host.Models, text: str) -> host.Cond:
        assert models.clip is not None
        self.texts.append(text)
        return host.Cond(torch.full((1, 2, 3), float(sum(map(ord, text)))), torch.ones(1, 2), {"mask": torch.ones(1)})
