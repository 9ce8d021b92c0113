"""What is measured of a student itself, along the teacher's own paths, which begin with the noise of the pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

import tcd

from ..data.threads import chunks
from ..sampling import device_of, guided_student
from .loras import Loaded
from .options import EvaluateOptions
from .prompts import Prompt, Scenes
from .rows import Row


@dataclass(frozen=True, eq=False)
class Path:
    """A batch of prompts with the states of the guided teacher [n + 1, B, C, h, w] at times [n + 1], noise first."""

    prompts: Sequence[Prompt]
    states: Tensor
    times: Tensor


@torch.no_grad()
def path_of(parts: Loaded, scenes: Scenes, prompts: Sequence[Prompt], opts: EvaluateOptions) -> Path:
    """The path of the teacher's solver, step by step, as `tcd.solve` spaces it."""
    sched, n = parts.sched, opts.teacher_steps
    teacher = parts.teacher(*scenes.of(prompts), opts.teacher_guidance)
    first, last = sched.index_of(sched.last), sched.index_of(sched.clean)
    between = [sched.time_at(torch.lerp(first, last, part)) for part in torch.linspace(0, 1, n + 1)[1:-1]]
    times = torch.stack([torch.tensor(sched.last), *between, torch.tensor(sched.clean)])
    states = [scenes.noise(prompts).to(device_of(parts))]
    for i in range(n):
        states.append(tcd.solver.follow(teacher, sched, states[-1], times[i : i + 2], opts.teacher_solver))
    return Path(prompts, torch.stack(states).cpu(), times)


def paths_of(parts: Loaded, scenes: Scenes, prompts: Sequence[Prompt], opts: EvaluateOptions) -> list[Path]:
    """The paths of those prompts that are measured."""
    chosen = prompts[: opts.probe_prompts or None]
    batches = chunks(chosen, opts.batch_size)
    return [path_of(parts, scenes, batch, opts) for batch in tqdm(batches, desc="the teacher's paths")]


@dataclass(frozen=True, eq=False)
class Probe:
    """A student, and the paths that it is measured on."""

    row: Row
    parts: Loaded
    scenes: Scenes
    paths: list[Path]

    @torch.no_grad()
    def mean(self, measure: Callable[[tcd.Predict, Path, Tensor], Tensor]) -> float:
        """Of measure(student, path, its states on the network's device) -> [B], over all samples."""
        found = [
            measure(
                guided_student(self.parts, *self.scenes.of(path.prompts), self.row.w),
                path,
                path.states.to(device_of(self.parts)),
            )
            for path in self.paths
        ]
        return torch.cat([values.float().cpu() for values in found]).mean().item()

    def ode_error(self) -> float:
        """One step to clean data against the teacher's solver."""
        sched = self.parts.sched

        def measure(student: tcd.Predict, path: Path, states: Tensor) -> Tensor:
            landed = tcd.TCF[self.row.tcf](student, sched, states[0], path.times[0], path.times[-1])
            pairs = zip(landed.split(1), states[-1].split(1), strict=True)
            return torch.tensor([tcd.metrics.ode_error(*pair) for pair in pairs])

        return self.mean(measure)

    def self_consistency(self) -> float:
        """How far clean data differ that are predicted from states of one path."""
        sched = self.parts.sched

        def measure(student: tcd.Predict, path: Path, states: Tensor) -> Tensor:
            known, times = states[:-1], path.times[:-1]
            return tcd.metrics.self_consistency(student, sched, known, times, sched.clean, self.row.tcf)

        return self.mean(measure)

    def drift(self) -> float:
        """How much the clean prediction changes a step, in as many steps as the row has, without noise on the way."""
        sched, times = self.parts.sched, tcd.timesteps(self.parts.sched, self.row.steps)

        def measure(student: tcd.Predict, path: Path, states: Tensor) -> Tensor:
            steps = list(tcd.sample(student, sched, states[0], times, 0.0, self.row.tcf))
            return tcd.metrics.drift(torch.stack([step.x0 for step in steps])).mean(0)

        return self.mean(measure)
