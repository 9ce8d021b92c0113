"""A fixed feature extractor for emoji, trained once: a small CNN that matches pictures with their captions.

    python -m demo.features            # about 2 minutes on two cores; writes demo/features.safetensors

A picture tower and a bag of words are trained to agree (InfoNCE, as CLIP), on pictures that are moved, lightened and
blurred; how much they were blurred must be read off the features as well, so that these hold both what a picture shows
and how sharp it is. The Frechet distance is taken between the tower's 64 features; a picture is of the caption whose
words it agrees with most. Nothing of the diffusion model goes into it.
"""

import argparse
import json
import math
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training import host

WEIGHTS = Path(__file__).parent / "features.safetensors"
WIDTH = 64
VOCABULARY = "tcd.vocabulary"  # in the metadata


def words(text: str) -> list[str]:
    """Lower-case words of a caption.

    >>> words("Red heart, on-fire!")
    ['red', 'heart', 'on', 'fire']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


class PictureTower(nn.Module):
    """Pictures [B, 3, 128, 128] in [0, 1] -> features [B, 64]."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 24, 48, 96, 96]
        blocks = []
        for into, out in pairwise(widths):
            blocks += [nn.Conv2d(into, out, 3, 2, 1), nn.GroupNorm(out // 8, out), nn.SiLU()]
        self.body = nn.Sequential(nn.AvgPool2d(2), *blocks)
        self.head = nn.Linear(96 * 4, WIDTH)

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.body(pictures * 2 - 1)
        return self.head(F.adaptive_avg_pool2d(maps, 2).flatten(1))


class WordTower(nn.Module):
    """Captions -> features [B, 64]: the sum of their words' own; a word that was never seen has none."""

    def __init__(self, vocabulary: list[str]) -> None:
        super().__init__()
        self.index = {word: i for i, word in enumerate(vocabulary)}
        self.of_words = nn.Linear(len(vocabulary), WIDTH, bias=False)

    def bags(self, captions: list[str]) -> Tensor:
        """[B, words], 1 for every word that a caption has."""
        bags = torch.zeros(len(captions), len(self.index))
        for row, caption in zip(bags, captions, strict=True):
            row[[self.index[word] for word in words(caption) if word in self.index]] = 1
        return bags

    def forward(self, captions: list[str]) -> Tensor:
        return self.of_words(self.bags(captions))


@cache
def load() -> tuple[PictureTower, WordTower]:
    """The trained towers, frozen."""
    with safe_open(WEIGHTS, framework="pt") as file:
        weights = {key: file.get_tensor(key).float() for key in file.keys()}
        towers = nn.ModuleDict({"tower": PictureTower(), "text": WordTower(json.loads(file.metadata()[VOCABULARY]))})
    towers.load_state_dict(weights)
    towers.requires_grad_(False).eval()
    return towers["tower"], towers["text"]  # type: ignore[return-value]


def describe(images: Tensor) -> Tensor:
    """Features [B, 64] of pictures [B, H, W, 3] in [0, 1]: what training.evaluate asks of its `features`."""
    return load()[0](images.permute(0, 3, 1, 2))


def retrieval(described: Tensor, own: list[str], captions: list[str]) -> float:
    """The share of pictures, by their features [B, 64], that agree more with their own caption than with any other."""
    of_captions = F.normalize(load()[1](captions), dim=1)
    nearest = (F.normalize(described, dim=1) @ of_captions.T).argmax(1)
    return sum(captions[i] == caption for i, caption in zip(nearest, own, strict=True)) / len(own)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Small shifts, scales and changes of brightness, one draw a picture, so that features are about content."""
    count = len(x)
    scale = 0.85 + 0.3 * torch.rand(count, generator=generator)
    shift = 0.2 * torch.rand(count, 2, generator=generator) - 0.1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    moved = 1 - F.grid_sample(1 - x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    light = 0.85 + 0.3 * torch.rand(count, 1, 1, 1, generator=generator)
    return moved * light


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, 3, H, W] with a standard deviation of `sigma` pixels; 0 leaves it alone."""
    if sigma == 0:
        return x
    reach = math.ceil(3 * sigma)
    line = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (line / line.sum()).expand(3, 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel.transpose(2, 3), groups=3)


def train(steps: int) -> None:
    """InfoNCE between picture features and the sum of the caption's word embeddings, and the blur from the features."""
    from demo import train_tiny

    torch.manual_seed(train_tiny.SEED)
    data, captions = train_tiny.pictures()
    tower, text = PictureTower(), WordTower(train_tiny.vocabulary(captions))
    sharpness, bags = nn.Linear(WIDTH, 1), text.bags(captions)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        pick = torch.randperm(len(data), generator=generator)[:128]
        sigmas = [0.0, *(3 * torch.rand(3, generator=generator)).tolist()]  # a quarter stays sharp
        quarters = augment(data[pick].float() / 255, generator).chunk(4)
        found = tower(torch.cat([blur(x, sigma) for x, sigma in zip(quarters, sigmas, strict=True)]))
        blurred_by = torch.tensor(sigmas).repeat_interleave(len(pick) // 4)
        images = F.normalize(found, dim=1)
        logits, goal = images @ F.normalize(text.of_words(bags[pick]), dim=1).T / 0.07, torch.arange(len(pick))
        matching = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)) / 2
        return matching + F.mse_loss(sharpness(found)[:, 0], blurred_by)

    average = train_tiny.run("features", {"tower": tower, "text": text, "sharpness": sharpness}, loss_of, steps, 2e-3)
    save(average, list(text.index))


def save(average: dict[str, Tensor], vocabulary: list[str]) -> None:
    """Write both towers, in half precision."""
    weights = {key: value.half().contiguous() for key, value in average.items() if not key.startswith("sharpness")}
    metadata = {"modelspec.title": "Emoji features", VOCABULARY: json.dumps(vocabulary)}
    save_file(weights, WEIGHTS, metadata)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps (default: %(default)s)")
    steps = parser.parse_args().steps
    host.start()
    train(steps)
