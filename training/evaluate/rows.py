"""Rows of the table: ways to sample, as `tcd:steps=4,gamma=0.3` or `ddim:steps=25,w=6.5` asks for them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import tcd

from ..host import Cond, Size
from ..network import Parts
from ..sampling import student_latents, teacher_latents
from ..watch.sheet import counted
from .loras import LoraFile
from .options import EvaluateOptions

# What each method may be told, and how it is read.
SOLVER: dict[str, Callable[[str], Any]] = {"steps": int, "w": float}
CONSISTENCY = SOLVER
TRAJECTORY = {"steps": int, "gamma": float, "tcf": str, "w": float}
METHODS = {
    "tcd": TRAJECTORY,
    **dict.fromkeys(("cm", "lcm", "direct_cm"), CONSISTENCY),
    **dict.fromkeys(tcd.SOLVERS, SOLVER),
}


@dataclass(frozen=True)
class Row:
    """One way to sample: a student with a LoRA or without, or, where `method` is a solver, the teacher."""

    method: str
    steps: int
    w: float
    gamma: float = 0.0
    tcf: str = ""
    lora: LoraFile | None = None

    @property
    def student(self) -> bool:
        return self.method not in tcd.SOLVERS

    @property
    def name(self) -> str:
        """Also that of its folder."""
        own = [f"gamma{self.gamma:g}", f"tcf{self.tcf}"] if self.student else []
        words = [*([self.lora.name] if self.lora else []), self.method, f"steps{self.steps}", *own, f"w{self.w:g}"]
        return "-".join(words)

    @property
    def label(self) -> str:
        """In words, for tables and sheets."""
        own = [f"gamma {self.gamma:g}", f"TCF({self.tcf.upper()})"] if self.student else []
        guided = [f"w {self.w:g}"] if self.w else []
        return ", ".join([*([self.lora.name] if self.lora else []), self.method, counted(self.steps), *own, *guided])

    def check(self, sched: tcd.Schedule) -> None:
        """Raises ValueError for a number of steps that the schedule's grid does not have."""
        if self.student:
            tcd.timesteps(sched, self.steps)

    def latents(
        self, parts: Parts, conds: Sequence[Cond], uncond: Cond, sizes: Sequence[Size], noise: Tensor, seeds: list[int]
    ) -> Tensor:
        """Samples from noise [B, C, h, w]."""
        what = (parts, conds, uncond, sizes, noise)
        if self.student:
            return student_latents(*what, self.steps, self.gamma, self.tcf, seeds, self.w)
        return teacher_latents(*what, self.steps, self.method, self.w)


def told(text: str) -> tuple[str, dict[str, Any]]:
    """(method, its parameters) of one of `methods`. Raises ValueError that names the bad part and what is allowed."""
    method, _, rest = text.partition(":")
    known, found = tcd.choose(METHODS, "methods", method), dict[str, Any]()
    for item in filter(None, rest.split(",")):
        name, equals, value = item.partition("=")
        if not equals or name not in known or name in found:
            wanted = ", ".join(f"{name}=" for name in known)
            raise ValueError(f"methods: {method} takes {wanted} each once; got {item!r} in {text!r}")
        try:
            found[name] = known[name](value)
        except ValueError:
            kind = known[name].__name__
            raise ValueError(f"methods: {name} must be of type {kind}, got {value!r} in {text!r}") from None
    return method, found


def check(row: Row, text: str) -> Row:
    """The row itself. Raises ValueError for numbers that are not allowed."""
    if row.steps < 1:
        raise ValueError(f"methods: steps must be at least 1, got {row.steps} in {text!r}")
    if not 0 <= row.w < math.inf:
        raise ValueError(f"methods: w must be at least 0, got {row.w} in {text!r}")
    if not 0 <= row.gamma <= 1:
        raise ValueError(f"methods: gamma must be in [0, 1], got {row.gamma} in {text!r}")
    if row.student:
        tcd.choose(tcd.TCF, "methods: tcf", row.tcf)
        if row.tcf == "s+" and (row.lora is None or row.lora.tcf != "s+"):
            raise ValueError(f"methods: tcf=s+ is for a LoRA that was distilled so, in {text!r}")
    return row


def rows_of(opts: EvaluateOptions, files: Sequence[LoraFile]) -> list[Row]:
    """The rows of `methods`, teachers first. Raises ValueError for one that cannot be, or is there twice."""
    teachers, students = list[Row](), list[Row]()
    for text in opts.methods:
        method, given = told(text)
        steps, w = given.get("steps", 4), given.get("w", 0.0)
        if method in tcd.SOLVERS:
            teachers.append(check(Row(method, steps, w), text))
            continue
        for file in files or [None]:
            gamma = (file.gamma if file else 0.3) if method == "tcd" else 1.0
            tcf = given.get("tcf", file.tcf if file else "1")
            students.append(check(Row(method, steps, w, given.get("gamma", gamma), tcf, file), text))
    names = [row.name for row in teachers + students]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"methods: {twice[0]} is there twice")
    return teachers + sorted(students, key=lambda row: files.index(row.lora) if row.lora else 0)


def teacher_row(opts: EvaluateOptions) -> Row:
    """The teacher that others are compared with."""
    return Row(opts.teacher_solver, opts.teacher_steps, opts.teacher_guidance)
