"""The ways to sample that TCD_Compare knows: rows of a sheet, of which every cell is planned before one is sampled.

A new method is a line of METHODS.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .. import tcd
from . import adapt, inputs
from .gammas import values_of
from .sampler import check_hears
from .sampling import sampler_of, sigmas_for

MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Source:
    """What is asked for predictions: a MODEL, its prompts, and the guidance that it needs."""

    model: Any
    positive: list
    negative: list
    cfg: float = 1.0

    @property
    def evaluations(self) -> int:
        """Of the network, for one prediction."""
        return 1 if self.cfg == 1 else 2


@dataclass(frozen=True, eq=False)
class Setup:
    """What the rows are made from: a source for TCD, LCM and the plain solvers each, gammas and order for TCD."""

    student: Source
    lcm: Source  # the student, where there is no other
    teacher: Source  # likewise
    gammas: str  # as they were written
    order: str


@dataclass(frozen=True, eq=False)
class Row:
    """A way to sample, of which only the number of steps is open."""

    name: str
    notes: tuple[str, ...]
    source: Source
    sampler: comfy.samplers.KSAMPLER
    levels: Callable[[int], Tensor]  # noise levels [n + 1] of n steps; ValueError where there are none
    predictions: Callable[[int], int]  # that n steps need
    gamma: float | None = None

    @property
    def label(self) -> tuple[str, ...]:
        """The name, and lines of what else matters."""
        return (self.name, *([] if self.gamma is None else [f"gamma {self.gamma:g}"]), *self.notes)

    def evaluations(self, steps: int) -> int:
        """Of the network, for so many steps."""
        return self.predictions(steps) * self.source.evaluations

    def affordable(self, evaluations: int) -> int:
        """The most steps for so many evaluations; 0 where not even one is."""
        return max((n for n in range(1, evaluations + 1) if self.evaluations(n) <= evaluations), default=0)


def grid_levels(model, steps: int) -> Tensor:
    """The distillation grid's noise levels. Raises ValueError for more steps than that has."""
    most = adapt.schedule_of_model(model).steps // inputs.GRIDS["distillation"]
    if steps > most:
        raise ValueError(f"steps must be at most {most} for tcd and lcm, whose grid has no more times; got {steps}")
    return sigmas_for(model, steps, 1.0, "distillation")


def host_levels(model, scheduler: str, steps: int) -> Tensor:
    """Noise levels of ComfyUI's scheduler. Raises ValueError where it does not give that many different ones."""
    levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps).cpu()
    different = len(levels.unique()) - 1
    if (different, len(levels) - 1) != (steps, steps):
        gives = f"ComfyUI's scheduler {scheduler}, which gives {different}: take other steps, or another method"
        raise ValueError(f"steps cannot be {steps} with {gives}")
    return levels


def distilled(source: Source, name: str, gamma: float, order: str) -> Row:
    """Strategic stochastic sampling. Raises ValueError for models that TCD, or that order, cannot do."""
    model = source.model
    adapt.schedule_of_model(model)  # for what it raises, as the next line
    check_hears(model.model_options, order)
    notes = () if order == "1" else (f"order {order}",)
    per_step = 2 if order == "2" else 1
    sampler = sampler_of(gamma, order, "x0")
    return Row(name, notes, source, sampler, partial(grid_levels, model), lambda n: per_step * n, gamma)


def lcm(setup: Setup) -> list[Row]:
    """The row of multistep consistency sampling, LCM's, which is TCD with gamma 1 (Algorithm 3)."""
    name = "LCM" if setup.lcm.model is setup.student.model else "LCM LoRA"
    return [distilled(setup.lcm, name, 1.0, "1")]


def solver(
    name: str, sampler: str, scheduler: str, predictions: Callable[[int], int] = lambda n: n, **options: float
) -> Callable[[Setup], list[Row]]:
    """The row of a sampler of ComfyUI's, on the teacher, or on the student where there is none."""

    def rows(setup: Setup) -> list[Row]:
        source = setup.teacher
        own = ["teacher"] if source.model is not setup.student.model else []
        guidance = [f"cfg {source.cfg:g}"] if source.cfg != 1 else []
        # `ddim` is not the name of a function: only `sampler_object` knows it.
        made = comfy.samplers.ksampler(sampler, options) if options else comfy.samplers.sampler_object(sampler)
        levels = partial(host_levels, source.model, scheduler)
        return [Row(name, (*own, *guidance), source, made, levels, predictions)]

    return rows


# Name -> the rows of the sheet. ComfyUI's ddim is euler: what makes it DDIM is ddim_uniform, the times of its authors
# and of diffusers, below pure noise. The others begin at pure noise, in even steps, and waste none at the lowest noise
# level, which counts with few steps. DPM-Solver++(2S) is ComfyUI's ancestral sampler without noise; its last step needs
# one prediction alone.
METHODS: dict[str, Callable[[Setup], list[Row]]] = {
    "tcd": lambda setup: [distilled(setup.student, "TCD", gamma, setup.order) for gamma in gammas_of(setup.gammas)],
    "lcm": lcm,
    "ddim": solver("DDIM", "ddim", "ddim_uniform"),
    "euler": solver("Euler", "euler", "simple"),
    "dpmpp_2s": solver("DPM++ 2S", "dpmpp_2s_ancestral", "simple", lambda n: 2 * n - 1, eta=0.0),
    "dpmpp_2m": solver("DPM++ 2M", "dpmpp_2m", "simple"),
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of the sheet: a row in so many steps; `why` says what is against it, if anything."""

    row: Row
    steps: int
    levels: Tensor
    why: str = ""

    @property
    def evaluations(self) -> int:
        """As they are expected."""
        return 0 if self.why else self.row.evaluations(self.steps)


def amount(number: str, what: str) -> str:
    """
    >>> amount("1", "step"), amount("4", "step")
    ('1 step', '4 steps')
    """
    return f"{number} {what}" if number == "1" else f"{number} {what}s"


def cell_within(row: Row, evaluations: int) -> Cell:
    """The cell of the most steps for so many evaluations, or an empty one that says why."""
    steps = row.affordable(evaluations)
    try:
        if steps == 0:
            raise ValueError(f"a step takes {row.evaluations(1)} evaluations")
        return Cell(row, steps, row.levels(steps))
    except ValueError as error:
        return Cell(row, steps, torch.zeros(0), str(error))


def words(text: str) -> list[str]:
    """What stands between commas, spaces and line breaks, each once."""
    return list(dict.fromkeys(re.findall(r"[^\s,;]+", text)))


def columns_of(text: str) -> list[int]:
    """The numbers of "2, 4, 8". Raises ValueError for none, and for one outside of 1 to MOST_STEPS."""
    found = words(text)
    for word in found or [""]:
        if not re.fullmatch(r"\d{1,9}", word) or not 1 <= int(word) <= MOST_STEPS:
            raise ValueError(f"steps must be whole numbers from 1 to {MOST_STEPS}, such as 2, 4, 8; got {word!r}")
    return list(dict.fromkeys(map(int, found)))


def gammas_of(text: str) -> tuple[float, ...]:
    """The numbers of "0, 0.3, 1", each once. Raises ValueError for none, and for one outside of [0, 1]."""
    try:
        values = tuple(dict.fromkeys(values_of(text)))
    except ValueError as error:
        raise ValueError(f"gammas: {error}") from None
    if not values:
        raise ValueError(f"gammas must be numbers in [0, 1], such as 0, 0.3, 1; got {text!r}")
    return values


def rows_of(text: str, setup: Setup) -> list[Row]:
    """The rows of "tcd, euler". Raises ValueError for no method, and for an unknown one."""
    builders = [tcd.choose(METHODS, "methods", name.lower()) for name in words(text) or [""]]
    return [row for builder in dict.fromkeys(builders) for row in builder(setup)]


def planned(rows: list[Row], columns: list[int], equal: bool) -> list[list[Cell]]:
    """All cells, row by row. Raises ValueError for steps that a row cannot do.

    At equal evaluations a cell that cannot be is empty instead, unless all are.
    """
    if not equal:
        return [[Cell(row, steps, row.levels(steps)) for steps in columns] for row in rows]
    cells = [[cell_within(row, budget) for budget in columns] for row in rows]
    if all(cell.why for line in cells for cell in line):
        most = amount(str(columns[-1]), "evaluation")
        raise ValueError(f"no method can do with {most}: {cells[-1][-1].why}")
    return cells


def setup_of(model, lcm_model, teacher, positive, negative, cfg: float, gammas: str, order: str) -> Setup:
    """The student and what else there is. Raises ValueError for guidance without a negative prompt."""
    student = Source(model, positive, positive)
    lcm = student if lcm_model is None else Source(lcm_model, positive, positive)
    if teacher is None:
        return Setup(student, lcm, student, gammas, order)
    if negative is None and cfg != 1:
        raise ValueError(f"the teacher's cfg is {cfg:g}: connect a negative prompt, or set cfg to 1")
    return Setup(student, lcm, Source(teacher, positive, negative or positive, cfg), gammas, order)
