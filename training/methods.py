"""The distillation methods: which times each draws, and its loss. A new one is a class and a line of METHODS."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import tcd

from .options import Options

# Weight of a sample by the signal-to-noise ratio at its time t.
WEIGHTINGS: dict[str, Callable[[Tensor, Options], Tensor]] = {
    "uniform": lambda snr, opts: torch.ones_like(snr),
    "min_snr": lambda snr, opts: snr.clamp(max=opts.min_snr_gamma),
    "snr_plus_one": lambda snr, opts: snr + 1,
}


@dataclass(frozen=True)
class Roles:
    """The predictions of one batch: the student, with a gradient; its target and the guided teacher, without."""

    student: tcd.Predict
    target: tcd.Predict
    teacher: tcd.Predict
    teacher_of: Callable[[Tensor], tcd.Predict]  # the teacher of some samples [k] of the batch


@dataclass(frozen=True)
class Method(ABC):
    """How one distillation method trains, as the options say."""

    opts: Options
    sched: tcd.Schedule

    @property
    def distance(self) -> tcd.loss.Distance:
        return tcd.loss.pseudo_huber(self.opts.huber_c) if self.opts.loss_type == "huber" else self.opts.loss_type

    @property
    def between(self) -> tuple[int, int]:
        """Training steps among which t is drawn: from the first up to but not the second."""
        return self.opts.min_timestep, min(self.opts.max_timestep, self.sched.steps)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The times of one sample, t first; each [1] or [1, M]."""

    @abstractmethod
    def compare(self, roles: Roles, x0: Tensor, noise: Tensor, times: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        """The loss of a batch, 0-dim; times are [B] or [B, M], the weight of each sample [B]."""

    def loss(self, roles: Roles, x0: Tensor, noise: Tensor, times: tuple[Tensor, ...]) -> Tensor:
        """The weighted loss of a batch: x0 and noise [B, C, h, w], times as `draw` gives them, stacked."""
        alpha, sigma = self.sched.alpha(times[0]), self.sched.sigma(times[0])
        weight = WEIGHTINGS[self.opts.loss_weighting]((alpha / sigma).square(), self.opts)
        return self.compare(roles, x0, noise, times, weight)


class TCD(Method):
    """Algorithms 1 and 2."""

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        ends = max(1, self.opts.ends)
        return tcd.draw_times(1, self.sched, self.opts.skip_steps, generator, ends, self.between)

    def compare(self, roles: Roles, x0: Tensor, noise: Tensor, times: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        t, n, m = times
        ends = m if self.opts.ends else None
        parts = (roles.student, roles.target, roles.teacher)
        how = (self.opts.tcf, self.opts.solver, self.distance, weight)
        return tcd.tcd_loss(*parts, self.sched, x0, noise, t, n, ends, *how)


class CM(Method):
    """Consistency distillation between neighbours of a grid."""

    loss_of = staticmethod(tcd.cm_loss)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tcd.draw_interval(1, self.sched, self.opts.intervals, generator, self.between)

    def compare(self, roles: Roles, x0: Tensor, noise: Tensor, times: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        parts, how = (roles.student, roles.target, roles.teacher), {"distance": self.distance, "weight": weight}
        return self.loss_of(*parts, self.sched, x0, noise, *times, solver=self.opts.solver, **how)


class LCM(CM):
    """Consistency distillation with c_skip and c_out."""

    loss_of = staticmethod(tcd.lcm_loss)


class DirectCM(Method):
    """The student against the teacher's whole path: the second paper's eq. 5."""

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tcd.draw_interval(1, self.sched, self.opts.intervals, generator, self.between)[:1]

    def compare(self, roles: Roles, x0: Tensor, noise: Tensor, times: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return tcd.direct_cm_loss(
            roles.student,
            roles.teacher,
            self.sched,
            x0,
            noise,
            times[0],
            intervals=self.opts.intervals,
            solver=self.opts.solver,
            distance=self.distance,
            weight=weight,
            teacher_of=roles.teacher_of,
        )


METHODS: dict[str, type[Method]] = {"tcd": TCD, "cm": CM, "lcm": LCM, "direct_cm": DirectCM}
