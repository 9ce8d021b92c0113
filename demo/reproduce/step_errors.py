"""How far one step lands from the teacher's exact path: short steps, those of sampling, and by their spacing."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

import tcd
from training.evaluate.loras import LoraFile
from training.evaluate.prompts import Prompt
from training.sampling import device_of

from .lab import SINGLE, Bench, Lab
from .memory import content, remembered
from .recipes import W

SOLVER = "dpmpp_2s"  # of the path that counts as exact

STUDENTS = ("tcd", "lcm", "tcf2", "splus")
ORDERS = {"1": 1, "2": 2}  # TCF -> k
FROM = (749, 499, 249)  # t of short steps
WIDTHS = tuple(0.00025 * 4**i for i in range(7))  # their h = lam_s - lam_t
SUBSTEPS = 3  # of the exact path from one end of short steps to the next
FEWER = 4  # short steps are made in double precision, for one in so many captions

SAMPLED = (8, 4, 2)  # long steps are the first ones of sampling with so many
STARTS = (999, 749, 499, 249)  # t_n
SPACINGS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 750, 1000)  # t_n - t_m
BRAKES = (24, 9, 3, 0)  # where lam runs fast the path stops more often, to be as exact as elsewhere

States = dict[float, Tensor]  # by time
Curves = dict[str, list[float]]  # by the time t that a step is from: its error for each end
Found = dict[str, Curves]  # of one seed, by what makes the step


def exactly(t: float) -> Tensor:
    """A time in double precision: the ends of short steps are between two training steps."""
    return torch.tensor(t, dtype=torch.float64)


def short_ends(sched: tcd.Schedule, t: float) -> list[float]:
    """s with lam_s - lam_t = h, for every h of WIDTHS."""
    return [sched.time_of(sched.lam(exactly(t)) + h).item() for h in WIDTHS]


def long_ends(sched: tcd.Schedule) -> list[float]:
    """Where the first step of sampling goes to, in SAMPLED steps, and in one: to clean data."""
    return [*(tcd.timesteps(sched, steps)[1].item() for steps in SAMPLED), sched.clean]


def spacings(t: int) -> list[int]:
    """Those that t_n = t has room for; the longest is to clean data, a training step before time 0."""
    return [spacing for spacing in SPACINGS if spacing <= t + 1]


def spaced_ends(t: int) -> list[float]:
    """t_m for every spacing."""
    return [float(t - spacing) for spacing in spacings(t)]


def stops(sched: tcd.Schedule) -> list[float]:
    """Every time that the whole path is looked at, noise first, and those of BRAKES."""
    ends = [end for t in STARTS for end in spaced_ends(t)]
    return sorted({*map(float, (*STARTS, *BRAKES)), *ends, *long_ends(sched)}, reverse=True)


def path(teacher: tcd.Predict, sched: tcd.Schedule, x: Tensor, times: Sequence[float], steps: Sequence[int]) -> States:
    """The teacher's path through x at the first of the times: its states at all, with so many steps between two."""
    states = {times[0]: x}
    for (t, s), count in zip(pairwise(times), steps, strict=True):
        states[s] = tcd.solve(teacher, sched, states[t], exactly(t), exactly(s), count, SOLVER)
    return states


def steps_between(sched: tcd.Schedule, fine: int) -> list[int]:
    """Steps of the whole path between its stops, none of them longer than those of a path of fine / 4 steps."""
    longest = 4 * sched.steps / fine
    return [math.ceil((t - s) / longest) for t, s in pairwise(stops(sched))]


def asked_once(predict: tcd.Predict, x: Tensor, t: Tensor) -> tcd.Predict:
    """A prediction that does not depend on the end, evaluated at (x, t) once for all ends."""
    at_t = predict(x, t, t)
    return lambda y, u, s: at_t if y is x else predict(y, u, s)


def errors(
    predict: tcd.Predict, sched: tcd.Schedule, tcf: str, states: States, t: float, ends: Sequence[float]
) -> list[float]:
    """How far one step from the path's state at t lands from its states at the ends."""
    x, start = states[t], exactly(t)
    step, known = tcd.TCF[tcf], predict if tcf == "s+" else asked_once(predict, x, start)
    return [tcd.metrics.ode_error(step(known, sched, x, start, exactly(end)), states[end]) for end in ends]


def short(teacher: tcd.Predict, sched: tcd.Schedule, states: States) -> Found:
    """Eq. 23: short steps by TCF(1) and TCF(2) with the teacher's prediction; the ends are those of WIDTHS."""
    found: Found = {f"short {tcf}": {} for tcf in ORDERS}
    for t in FROM:
        ends = short_ends(sched, t)
        way = path(teacher, sched, states[t], [t, *ends], [SUBSTEPS] * len(ends))
        for tcf in ORDERS:
            found[f"short {tcf}"][str(t)] = errors(teacher, sched, tcf, way, t, ends)
    return found


def long(teacher: tcd.Predict, sched: tcd.Schedule, states: States) -> Found:
    """The same for steps from noise that are as long as those of sampling."""
    t, ends = STARTS[0], long_ends(sched)
    return {f"long {tcf}": {str(t): errors(teacher, sched, tcf, states, t, ends)} for tcf in ORDERS}


def spaced(predict: tcd.Predict, sched: tcd.Schedule, tcf: str, states: States) -> Curves:
    """Section 4.2: steps from every t_n to every t_m."""
    return {str(t): errors(predict, sched, tcf, states, t, spaced_ends(t)) for t in STARTS}


def of_short_steps(bench: Bench, prompts: Sequence[Prompt], states: States) -> Found:
    """In double precision: rounding to single is more than the error of the shortest steps."""
    with bench.parts(None) as parts:
        parts.net.unet = copy.deepcopy(parts.net.unet).double()
        teacher = parts.teacher(*bench.scenes.of(prompts[::FEWER]), W)
        return short(teacher, parts.sched, {t: states[t][::FEWER].double() for t in FROM})


def of_teacher(bench: Bench, prompts: Sequence[Prompt], fine: int) -> tuple[States, Found]:
    """The path, and the teacher's own steps."""
    with bench.parts(None) as parts:
        teacher, sched = parts.teacher(*bench.scenes.of(prompts), W), parts.sched
        noise = bench.scenes.noise(prompts).to(device_of(parts))
        states = path(teacher, sched, noise, stops(sched), steps_between(sched, fine))
        return states, {**long(teacher, sched, states), "teacher": spaced(teacher, sched, "1", states)}


def of_student(bench: Bench, prompts: Sequence[Prompt], lora: LoraFile, states: States) -> Curves:
    conds, _, sizes = bench.scenes.of(prompts)
    with bench.parts(lora) as parts:
        return spaced(parts.student(conds, sizes), parts.sched, lora.tcf, states)


@torch.no_grad()
def measured(lab: Lab, prompts: Sequence[Prompt]) -> Found:
    """Every error of one seed."""
    bench = lab.bench(SINGLE)
    states, found = of_teacher(bench, prompts, lab.scale.fine)
    found |= of_short_steps(bench, prompts, states)
    return found | {name: of_student(bench, prompts, lab.student(name), states) for name in STUDENTS}


def results(lab: Lab) -> list[Found]:
    """For each seed."""
    bench = lab.bench(SINGLE)
    files = [content(file) for file in (bench.base.checkpoint, *(lab.student(name).path for name in STUDENTS))]
    grids = (
        bench.base.precision,
        W,
        SOLVER,
        lab.scale.fine,
        FROM,
        WIDTHS,
        SUBSTEPS,
        FEWER,
        SAMPLED,
        STARTS,
        SPACINGS,
        BRAKES,
    )
    found = []
    for seed, prompts in zip(lab.scale.seeds, bench.seeds, strict=True):
        chosen = prompts[: lab.scale.probes]
        make = partial(measured, lab, chosen)
        found.append(remembered(lab.folder / "errors", f"seed{seed}", (files, grids, chosen), make))
    return found
