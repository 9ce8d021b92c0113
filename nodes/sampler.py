"""Strategic stochastic sampling as ComfyUI calls a sampler. Keeps nothing between runs: ComfyUI reuses its SAMPLERs."""

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from torch import Tensor
from tqdm.auto import tqdm

from .. import tcd
from . import adapt, masks, noise, target_time
from .gammas import Gammas

RECORDER = "tcd_recorder"  # key in transformer_options: who is told every step
ENDS = ("x0", "t0")  # the clean prediction, as Algorithm 4 and ComfyUI do; the smallest noise level, as diffusers


def distinct(sigmas: Tensor) -> Tensor:
    """Without repeated noise levels, each of which would be an evaluation for nothing; on the CPU."""
    levels = [level for level, _ in groupby(sigmas.tolist())]
    if len(levels) < len(sigmas):
        logging.warning("TCD sampler: %d repeated noise levels are left out", len(sigmas) - len(levels))
    return torch.tensor(levels)


def without_landed(levels: Tensor, first: float) -> Tensor:
    """Without a step from the smallest noise level down to itself, as the dense grid has one where it is used up."""
    starts = levels[:-1]
    return torch.cat([starts[starts > first], levels[-1:]])


def check_hears(model_options: dict, tcf: str) -> None:
    """Raises ValueError for TCF(S+) on a model that is not told where a step goes."""
    if tcf == "s+" and not target_time.is_installed(model_options):
        raise ValueError("order s+ needs a model that is told where it goes: load a TCF(S+) LoRA by TCD LoRA Loader")


def predictor(model, extra_args: dict, schedule: adapt.HostSchedule, tcf: str) -> tcd.Predict:
    """The guided, masked, hooked network as predict(x, t, s) -> x0; with s as an input of it for TCF(S+).

    ComfyUI's Cancel stops it after any evaluation, also in the middle of a step.
    """
    options = extra_args.get("model_options", {})
    check_hears(options, tcf)

    def predict(x: Tensor, sigma: Tensor, target: Tensor | None = None) -> Tensor:
        args = extra_args
        if tcf == "s+" and target is not None:
            told = target_time.told(options, float(schedule.own_time(target)))
            args = {**extra_args, "model_options": told}
        x0 = model(x, x.new_full((x.shape[0],), float(sigma)), **args)
        throw_exception_if_processing_interrupted()
        return x0

    return predict


def resumes(model, x: Tensor, extra_args: dict) -> None:
    """Inpainting that goes on from a noisy latent keeps what was kept before, and says so where that is not known."""
    if extra_args.get("denoise_mask") is None or bool(model.noise.any()) or not bool(model.latent_image.any()):
        return
    if not masks.recall(model, x):
        logging.warning(
            "TCD sampler: inpainting without noise, and not where a TCD Sampler has stopped: what the latent holds "
            "outside of the mask is kept as it is, noise included"
        )


def watched(steps: Iterator[tcd.Step], count: int, recorders: Iterable, callback, disable) -> Iterator[tcd.Step]:
    """The steps, shown by a progress bar, to the recorders and to ComfyUI's callback."""
    for step in tqdm(steps, total=count, disable=disable):
        for recorder in recorders:
            recorder.exact(step)
        if callback is not None:
            callback({"x": step.x_t, "i": step.i, "sigma": step.t, "sigma_hat": step.t, "denoised": step.x0})
        yield step


def sample_tcd(
    model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback=None,
    disable=None,
    *,
    gamma: float | Gammas = 0.3,
    tcf: str = "1",
    last_step: str = "x0",
    noise_offset: int = 0,
    recorders: Iterable | None = None,
) -> Tensor:
    """ComfyUI's sampler function, over any noise levels [n + 1], whole or split.

    `last_step` "t0" lands where diffusers does, in its units, instead of on the clean prediction; only where the noise
    levels end at 0. `noise_offset` chooses another noise to put back for the same seed. `recorders` hear every step:
    those of the model unless given.
    """
    extra_args = extra_args or {}
    levels = distinct(sigmas)
    if len(levels) < 2:
        return x
    schedule = adapt.schedule_of(model.inner_model.inner_model.model_sampling)
    lands = last_step == "t0" and float(levels[-1]) == 0
    levels = without_landed(levels, schedule.first) if lands else levels
    if len(levels) < 2:
        return schedule.as_diffusers(x, schedule.first)
    seed = extra_args.get("seed") or 0
    drawn = noise.put_back(x, model.noise, seed, noise_offset)
    resumes(model, x, extra_args)
    steps = tcd.sample(
        predictor(model, extra_args, schedule, tcf),
        schedule,
        x,
        levels[:-1],
        gamma.along(schedule, levels[1:]) if isinstance(gamma, Gammas) else gamma,
        tcf,
        end="t0" if lands else levels[-1],
        noise=drawn,
    )
    if recorders is None:
        recorders = extra_args.get("model_options", {}).get("transformer_options", {}).get(RECORDER) or ()
    for step in watched(steps, len(levels) - 1, recorders, callback, disable):
        x = step.x_s
    if extra_args.get("denoise_mask") is not None and float(levels[-1]) > 0:
        masks.remember(model, x)
    return schedule.as_diffusers(x, schedule.first) if lands else x
