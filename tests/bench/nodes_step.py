"""Time of sampling with our nodes inside ComfyUI, against its own samplers at as many evaluations.

    python3 dev.py bench nodes

On the tiny model the whole run counts, against `euler`, and recorded against not recorded. On a null model, whose
network costs nothing, what is left is the sampler's own: against `euler_ancestral`, which puts noise back too. All take
turns, so that whatever else the machine does falls on each; the medians and the median of the ratios of each turn are
printed, the latter with its 95% interval.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests' own helpers

from host_models import model_of
from host_process import run, sigmas, stock_sampler, tcd_sampler

Run = Callable[[], Any]
ROUNDS, BARE_ROUNDS = 200, 400

# Whole runs on the tiny model that are held against `euler`: ours, ours without noise, and ComfyUI's own that puts
# noise back, which says what that costs at least.
AGAINST_EULER: dict[str, Callable[[], Any]] = {
    "TCD Sampler": tcd_sampler,
    "TCD Sampler, gamma 0": lambda: tcd_sampler(gamma=0.0),
    "euler_ancestral": lambda: stock_sampler("euler_ancestral"),
}


def sampling(model: Any, cond: Any, sampler: Any, levels: torch.Tensor, shape: tuple[int, ...]) -> Run:
    """One run of ComfyUI's guider, without nodes around it."""
    (guider,) = run("BasicGuider", model=model, conditioning=cond)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    latent = torch.zeros(shape)
    return lambda: guider.sample(noise, latent, sampler, levels, disable_pbar=True, seed=0)


def bare(model: Any, sampler: Any, levels: torch.Tensor, shape: tuple[int, ...]) -> Run:
    """The sampler alone, on a guider that answers at once."""

    class Guider:
        inner_model = model.model
        answer = torch.randn(shape, generator=torch.Generator().manual_seed(1))

        def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: dict, seed: int) -> torch.Tensor:
            return self.answer

    noise, latent = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.zeros(shape)
    return lambda: sampler.sample(Guider(), levels, {"seed": 0}, None, noise.clone(), latent, disable_pbar=True)


def milliseconds(measured: Run) -> float:
    began = time.perf_counter()
    measured()
    return (time.perf_counter() - began) * 1000


def interval(values: list[float]) -> tuple[float, float]:
    """Of the median, 95%, whatever the values are distributed like: the order statistics n/2 -+ 0.98 sqrt(n).

    >>> interval([float(i) for i in range(100)])
    (40.0, 59.0)
    """
    beyond = math.floor(len(values) / 2 - 0.98 * math.sqrt(len(values)))
    return sorted(values)[beyond], sorted(values)[-1 - beyond]


def row(name: str, ours: Run, theirs: Run, *, rounds: int = ROUNDS) -> None:
    for warm in (ours, theirs):
        warm()
    pairs = []
    for turn in range(rounds):  # each goes first every other turn
        order = (ours, theirs) if turn % 2 else (theirs, ours)
        taken = {id(measured): milliseconds(measured) for measured in order}
        pairs.append((taken[id(ours)], taken[id(theirs)]))
    us, them = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    low, high = interval(ratios)
    ratio = f"{statistics.median(ratios):.3f} | {low:.3f} to {high:.3f}"
    print(f"| {name} | {us:.2f} | {them:.2f} | {ratio} |", flush=True)


@torch.inference_mode()
def main() -> None:
    model, clip, _ = run("TCD_TinyLoader")
    cond = run("CLIPTextEncode", clip=clip, text="red heart")[0]
    null = model_of(model, "eps", lambda x, t: x)
    print(f"{torch.get_num_threads()} threads; ms a run\n")
    print("| what | ours | against | ratio | 95% |\n| --- | ---: | ---: | ---: | ---: |")
    for steps in (4, 8):
        levels, shape = sigmas(model, steps), (1, 4, 16, 16)
        euler = sampling(model, cond, stock_sampler("euler"), levels, shape)
        for name, sampler in AGAINST_EULER.items():
            run_of = sampling(model, cond, sampler(), levels, shape)
            row(f"tiny model, {steps} steps, {name}, against euler", run_of, euler)
    watched, _ = run("TCD_RecordTrajectory", model=model)
    for steps in (4, 8):
        levels, shape = sigmas(model, steps), (1, 4, 16, 16)
        runs = [sampling(each, cond, tcd_sampler(), levels, shape) for each in (watched, model)]
        row(f"tiny model, {steps} steps, recorded, against not recorded", *runs)
    for size in (16, 64, 128):
        for steps in (4, 8):
            levels, shape = sigmas(null, steps), (1, 4, size, size)
            samplers = (tcd_sampler(), stock_sampler("euler_ancestral"))
            runs = [bare(null, sampler, levels, shape) for sampler in samplers]
            row(
                f"no network, [1, 4, {size}, {size}], {steps} steps, against euler_ancestral", *runs, rounds=BARE_ROUNDS
            )


if __name__ == "__main__":
    main()
