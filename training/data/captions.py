"""Captions: how they are read, and how each time varies them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from ..options import Options
from ..textfile import read_text
from .sources import Subset

T = TypeVar("T")


def read(picture: Path, subset: Subset) -> str:
    """The first line of the picture's caption file, between prefix and suffix.

    Raises ValueError for a file that is missing, without `class_tokens` to stand in, that is empty or not UTF-8.
    """
    path = picture.with_suffix(subset.opts.caption_extension)
    try:
        lines = read_text(path).strip().splitlines()
    except FileNotFoundError:
        if not subset.class_tokens:
            raise ValueError(f"has no caption: {path.name} is missing") from None
        lines = [subset.class_tokens]
    except (OSError, ValueError) as error:
        raise ValueError(f"has a caption that cannot be read as UTF-8, {path.name}: {error}") from None
    if not lines:
        raise ValueError(f"has an empty caption: {path.name}")
    return " ".join(part for part in (subset.prefix, lines[0].strip(), subset.suffix) if part)


def shuffled(items: Sequence[T], generator: torch.Generator) -> list[T]:
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def vary(caption: str, opts: Options, epoch: int, generator: torch.Generator) -> str:
    """The caption as it is shown once, in an epoch 0, 1, ...: it or its tags may be dropped, and these shuffled."""
    every = opts.caption_dropout_every_n_epochs
    if every and (epoch + 1) % every == 0:
        return ""
    if torch.rand((), generator=generator) < opts.caption_dropout_rate:
        return ""
    if not opts.shuffle_caption and not opts.caption_tag_dropout_rate:
        return caption
    tags = [tag.strip() for tag in caption.split(opts.caption_separator)]
    kept, free = tags[: opts.keep_tokens], tags[opts.keep_tokens :]
    if opts.shuffle_caption:
        free = shuffled(free, generator)
    chances = torch.rand(len(free), generator=generator)
    free = [tag for tag, chance in zip(free, chances, strict=True) if chance >= opts.caption_tag_dropout_rate]
    return f"{opts.caption_separator.strip()} ".join(kept + free)
