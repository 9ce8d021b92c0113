"""What is to be sampled: every prompt with every seed, each with its own noise, the same for all rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data import captions, sources
from ..data.prompts import read
from ..data.texts import texts, unconditional
from ..draws import generator
from ..host import Cond, Models, Size
from ..sampling import initial_noise
from .options import EvaluateOptions


@dataclass(frozen=True)
class Prompt:
    """One picture that is wanted: its number in the folder, its text, and the seed of all its noise."""

    index: int
    text: str
    seed: int


def of_folder(opts: EvaluateOptions) -> list[str]:
    """The captions of kohya's folders, each once. Raises ValueError for a picture without one."""
    found = dict[str, None]()
    folders = replace(opts.model, train_data_dir=opts.train_data_dir, caption_extension=opts.caption_extension)
    for subset in sources.of_folders(folders):
        for picture in subset.pictures():
            try:
                found[captions.read(picture, subset)] = None
            except ValueError as error:
                raise ValueError(f"{picture} {error}") from None
    return list(found)


def texts_of(opts: EvaluateOptions) -> list[str]:
    """The prompts, as many as are wanted. Raises ValueError for a file that cannot be read, or has none."""
    found = read(Path(opts.prompts)) if opts.prompts else of_folder(opts)
    if not 0 < opts.max_prompts < len(found):
        return found
    return [found[i] for i in torch.linspace(0, len(found) - 1, opts.max_prompts).round().long()]


def prompts_of(texts: list[str], seed: int, first: int) -> list[Prompt]:
    """The prompts with one seed, whose pictures are numbered from `first` on."""
    return [Prompt(first + i, text, generator(seed, "evaluate", i).initial_seed()) for i, text in enumerate(texts)]


class Scenes:
    """What the network is told of each prompt, encoded once."""

    def __init__(self, models: Models, prompts: list[str], opts: EvaluateOptions):
        width, height = opts.size
        self.models, self.pixels = replace(models, clip=None), opts.size
        self.size = Size(width, height, 0, 0, width, height)
        self.conds = texts(models, prompts, opts.model)
        self.uncond = unconditional(self.conds, opts.model)

    def of(self, prompts: Sequence[Prompt]) -> tuple[list[Cond], Cond, list[Size]]:
        """(conditions, unconditional one, sizes) of a batch."""
        return [self.conds(prompt.text) for prompt in prompts], self.uncond, [self.size] * len(prompts)

    def noise(self, prompts: Sequence[Prompt]) -> Tensor:
        """[B, C, h, w]."""
        return torch.cat([initial_noise(self.models, self.pixels, prompt.seed) for prompt in prompts])
