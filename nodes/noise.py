"""The noise that TCD puts back: the same for the same seed, wherever a run is split and however its batch is cut."""

import hashlib
import struct
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

SEARCHED = 2**24  # numbers that are drawn to find a picture's place in its batch: a tenth of a second
HEAD = 16  # numbers that tell one picture's noise from another's; torch draws as many at a time
ROUNDING = 0.02  # of noise that ComfyUI kept in a half-precision latent


def seed_of(seed: int, offset: int, sigma: float, place: int) -> int:
    """The seed of one picture's noise on the way up to one noise level.

    Hashed, so that it is none that ComfyUI's initial noise has; torch looks at 32 bits of a seed alone.
    """
    key = struct.pack("<QQfI", seed % 2**64, offset % 2**64, sigma, place)
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")


def places(initial: Tensor, seed: int) -> list[int]:
    """Which picture of its whole batch each item of the initial noise [B, C, ...] was drawn for.

    ComfyUI draws item after item from the seed, and a latent's `batch_index` picks from them; samplers are not told
    it, but the noise says it. Noise of another origin gets its own order.
    """
    found: dict[int, int] = {}
    heads = initial.flatten(1)[:, :HEAD].float().cpu()
    if bool(heads.any()):
        generator = torch.Generator("cpu").manual_seed(seed)
        size = initial[0].numel()
        for place in range(max(len(heads), SEARCHED // size)):
            here = generator.get_state()
            near = (heads - torch.randn(heads.shape[1], generator=generator)).abs().amax(1) < ROUNDING
            found.update((i, place) for i in near.nonzero().flatten().tolist() if i not in found)
            if len(found) == len(heads):
                break
            torch.randn(size, generator=generator.set_state(here))  # on to the next picture
    return [found.get(i, i) for i in range(len(initial))]


def put_back(x: Tensor, initial: Tensor, seed: int, offset: int) -> Callable[[Tensor], Tensor]:
    """noise(s) for `tcd.sample`: standard normal, of the shape, dtype and device of x; made on the CPU, as ComfyUI's.

    `initial` is the run's initial noise. What is drawn depends on the noise level s but not on the step's number, so
    split sigmas go on as whole ones do.
    """
    of_batch, generator = cache(partial(places, initial, seed)), torch.Generator("cpu")

    def draw(sigma: float, place: int) -> Tensor:
        return torch.randn(1, *x.shape[1:], generator=generator.manual_seed(seed_of(seed, offset, sigma, place)))

    def noise(s: Tensor) -> Tensor:
        first, *others = [draw(s.item(), place) for place in of_batch()]
        return (torch.cat([first, *others]) if others else first).to(x)

    return noise
