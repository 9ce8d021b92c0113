"""Time of one sampling step without its network, against diffusers' TCDScheduler: docs/benchmarks.md.

    python3 dev.py bench tcd

Both get the same constant eps for the same states [4, 4, 128, 128], float32, on the CPU. They take turns, so that
whatever else the machine does falls on both; the medians and the median of their ratio are printed. Most of a step with
noise is torch.randn, which both call alike; in the last row both are given the noise instead. glibc's malloc is told to
keep freed pages, for both alike: else some processes get every state's pages anew from the system, and others do not.
"""

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import torch
from diffusers.schedulers.scheduling_tcd import TCDScheduler

import tcd

SHAPE, STEPS, ROUNDS = (4, 4, 128, 128), 4, 300

Run = Callable[[], torch.Tensor]


def ours(x: torch.Tensor, eps: torch.Tensor, gamma: float) -> Run:
    sched = tcd.DiscreteVP.scaled_linear()
    times, predict = tcd.timesteps(sched, STEPS), tcd.as_x0(lambda x, t: eps, sched)

    def run() -> torch.Tensor:
        state, generator = x, torch.Generator().manual_seed(0)
        for step in tcd.sample(predict, sched, x, times, gamma, generator=generator, end="t0"):
            state = step.x_s
        return state

    return run


def theirs(x: torch.Tensor, eps: torch.Tensor, gamma: float) -> Run:
    scheduler = TCDScheduler()

    def run() -> torch.Tensor:
        state, generator = x, torch.Generator().manual_seed(0)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            state = scheduler.step(eps, int(t), state, eta=gamma, generator=generator, return_dict=False)[0]
        return state

    return run


def milliseconds(run: Run) -> float:
    """Of one step."""
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000 / STEPS


def row(name: str, runs: tuple[Run, Run]) -> None:
    torch.testing.assert_close(runs[0](), runs[1](), rtol=0, atol=1e-4)
    pairs = [[milliseconds(run) for run in runs] for _ in range(ROUNDS)]
    us, them = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"| {name} | {us:.2f} | {them:.2f} | {statistics.median(a / b for a, b in pairs):.2f} |", flush=True)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MOST = -1, -3, 2**25  # of mallopt


def keep_pages() -> None:
    """Let malloc keep what is freed."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            libc.mallopt(parameter, MOST)


@torch.no_grad()
def main() -> None:
    keep_pages()
    x, eps, noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    print(f"{torch.get_num_threads()} threads, medians of {ROUNDS} runs of {STEPS} steps")
    print("\n| gamma | tcd, ms a step | diffusers, ms a step | ratio |\n| --- | ---: | ---: | ---: |")
    row("0", (ours(x, eps, 0.0), theirs(x, eps, 0.0)))
    row("0.3", (ours(x, eps, 0.3), theirs(x, eps, 0.3)))
    with mock.patch.object(torch, "randn", return_value=noise):
        row("0.3, noise given", (ours(x, eps, 0.3), theirs(x, eps, 0.3)))


if __name__ == "__main__":
    main()
