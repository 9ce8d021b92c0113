"""Inpainting across split sigmas: ComfyUI's second half no longer knows what was outside of the mask.

It keeps that part from the latent that it is given, which for a second half is the noisy state where the first half
stopped: the noise would stay in the picture. So the sampler remembers the few last states that were left so.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Unfinished:
    """An inpainting that stopped at a noise level above 0: where, and what ComfyUI keeps outside of the mask."""

    state: Tensor
    latent_image: Tensor
    noise: Tensor


LAST: deque[Unfinished] = deque(maxlen=4)


def remember(model, state: Tensor) -> None:
    """Keep the clean picture and the initial noise of a run that ends in `state`, on the CPU."""
    LAST.append(Unfinished(*(tensor.detach().cpu().clone() for tensor in (state, model.latent_image, model.noise))))


def same(a: Tensor, b: Tensor) -> bool:
    """Equal but for what a latent loses on its way out of ComfyUI's sampling and in again."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.std()))


def recall(model, state: Tensor) -> bool:
    """Let the run that starts in `state` keep what the one before it kept; whether there was one."""
    here = state.detach().cpu()
    before = next((run for run in reversed(LAST) if same(run.state.to(here), here)), None)
    if before is None:
        return False
    model.latent_image, model.noise = (kept.to(state) for kept in (before.latent_image, before.noise))
    return True
