"""What a recording MODEL remembers of its last sampling runs: on the CPU, within a limit, whatever the sampler is."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import KSAMPLER
from torch import Tensor

from .. import tcd
from .masks import same
from .sampler import RECORDER, sample_tcd

LIMIT = 256 * 2**20  # bytes of one run and of all that are kept: sixteen pictures of 1024 x 1024 in 50 steps
RUNS = 4  # runs that are kept, for several samplers on one MODEL


def on_cpu(state: Tensor) -> Tensor:
    """A copy: some samplers write to their states. Of ComfyUI's nested latents, picture and sound, the picture."""
    return (state.unbind()[0] if state.is_nested else state).detach().to("cpu", copy=True)


@dataclass(eq=False)
class Reference:
    """Hears the steps of the path without noise, and keeps its states."""

    states: list[Tensor]

    def exact(self, step: tcd.Step) -> None:
        self.states += [on_cpu(step.x_t)] * (not self.states) + [on_cpu(step.x_s)]


@dataclass(eq=False)
class Run:
    """The steps of one run; of a run too large for LIMIT every 2nd, 4th, ... step and the last one."""

    total: int = 0
    rows: dict[int, tcd.Step] = field(default_factory=dict)
    observed: set[int] = field(default_factory=set)  # steps of which only the callback is known
    reference: list[Tensor] = field(default_factory=list)  # states of the path without noise
    start: int = 0  # number of the first step of the present half, of a run over split sigmas
    stride: int = 1
    end: float = 0.0  # noise level where it stopped
    final: Tensor | None = None  # as ComfyUI gave it, in the model's own space

    def wants(self, i: int) -> bool:
        return i not in self.rows and (i % self.stride == 0 or i == self.total - 1)

    def add(self, i: int, step: tcd.Step) -> None:
        self.rows[i] = step
        while len(self.rows) > 2 and self.nbytes > LIMIT:
            self.stride *= 2
            self.rows = {i: row for i, row in self.rows.items() if i % self.stride == 0 or i == self.total - 1}

    @property
    def nbytes(self) -> int:
        states = [state for row in self.rows.values() for state in (row.x_t, row.x0, row.x_s_prime, row.x_s)]
        return sum({id(state): state.nbytes for state in [*states, *self.reference]}.values())

    @property
    def held(self) -> str:
        """How much it holds, in words."""
        part = "all" if self.stride == 1 else f"one in {self.stride}"
        return f"{self.nbytes / 2**20:.1f} MiB, {part} of {self.total} steps"

    def steps(self) -> Iterator[tcd.Step]:
        """The steps. One that was only observed, or with others left out after it, lands where the next one starts."""
        kept = sorted(self.rows)
        for i, after in zip(kept, [*kept[1:], None], strict=True):
            step = self.rows[i]
            if after is None and i in self.observed and self.final is not None and self.end == 0:
                yield replace(step, x_s_prime=self.final, x_s=self.final)
            elif after is not None and (i in self.observed or after > i + 1):
                then = self.rows[after]
                yield replace(step, s_prime=then.t, s=then.t, x_s_prime=then.x_t, x_s=then.x_t)
            else:
                yield step

    def walk_reference(self, model, sigmas, extra_args, noise, latent_image, denoise_mask) -> None:
        """The path without noise, of the same start, or on from where it had come to: as many evaluations again."""
        if self.reference:
            sampling = model.inner_model.model_sampling
            latent_image = sampling.inverse_noise_scaling(sigmas[0], self.reference[-1].to(latent_image))
        sampler = KSAMPLER(sample_tcd, {"gamma": 0.0, "recorders": (Reference(self.reference),)})
        sampler.sample(model, sigmas, dict(extra_args), None, noise, latent_image, denoise_mask, True)

    def trajectory(self) -> tcd.Trajectory:
        path = tcd.Trajectory.record(self.steps(), unit="sigma")
        whole = len(self.reference) == len(path) + 1
        return replace(path, reference=torch.stack(self.reference)) if whole else path


class Recorder:
    """The last runs of a model: exactly from our sampler, from the callbacks of any other."""

    def __init__(self, latent_format, with_reference: bool = False) -> None:
        self.latent_format, self.with_reference = latent_format, with_reference
        self.runs: deque[Run] = deque(maxlen=RUNS)

    def __deepcopy__(self, memo: dict) -> "Recorder":
        """Itself: ComfyUI before 0.14 copies a model's options deeply, also what is in them."""
        return self

    def exact(self, step: tcd.Step) -> None:
        """A step of our own sampler. What it starts from, the step before has landed on: that is copied once."""
        run = self.runs[-1]
        i = run.start + step.i
        if run.wants(i):
            before = run.rows.get(i - 1)
            x_t = before.x_s if before is not None else on_cpu(step.x_t)
            x_s_prime = on_cpu(step.x_s_prime)
            x_s = x_s_prime if step.x_s is step.x_s_prime else on_cpu(step.x_s)
            run.add(i, replace(step, i=i, x_t=x_t, x0=on_cpu(step.x0), x_s_prime=x_s_prime, x_s=x_s))

    def observe(self, i: int, x: Tensor, x0: Tensor, sigmas: Tensor) -> None:
        """A step of any sampler; the next one tells where it landed."""
        run = self.runs[-1]
        number = run.start + i
        if run.wants(number) and i + 1 < len(sigmas):
            x, x0 = on_cpu(x), on_cpu(x0)
            run.observed.add(number)
            run.add(number, tcd.Step(number, sigmas[i], sigmas[i + 1], sigmas[i + 1], x, x0, x0, x0))

    def begin(self, sigmas: Tensor, noise: Tensor, latent_image: Tensor) -> Run:
        """A new run, or the one before where this is its other half: it starts, without noise, where that one ended."""
        before = self.runs[-1] if self.runs else None
        here = latent_image.float().cpu()
        if (
            before is not None
            and before.final is not None
            and before.end == float(sigmas[0])
            and not bool(noise.any())
            and same(before.final, here)
        ):
            before.start = before.total
        else:
            before = Run()
            self.runs.append(before)
        before.total += len(sigmas) - 1
        return before

    def __call__(self, executor, model, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable):
        """ComfyUI's SAMPLER_SAMPLE wrapper: watch this run."""
        run, levels = self.begin(sigmas, noise, latent_image), sigmas.cpu()

        def watch(i: int, x0: Tensor, x: Tensor, total: int) -> None:
            self.observe(i, x, x0, levels)
            if callback is not None:
                callback(i, x0, x, total)

        samples = executor(model, sigmas, extra_args, watch, noise, latent_image, denoise_mask, disable)
        run.final, run.end = samples.float().cpu(), float(levels[-1])
        if self.with_reference:
            run.walk_reference(model, sigmas, extra_args, noise, latent_image, denoise_mask)
        while len(self.runs) > 1 and sum(run.nbytes for run in self.runs) > LIMIT:
            self.runs.popleft()
        return samples

    def run_of(self, latent: Tensor | None = None) -> tuple[Run, bool]:
        """(the run that ended in this latent, True), or (the last one, False). Raises ValueError before any."""
        runs = [run for run in self.runs if run.rows]
        if not runs:
            raise ValueError("the trajectory is empty: sample with the MODEL that TCD_RecordTrajectory gives")
        if latent is not None:
            state = self.latent_format.process_in(latent.float().cpu())
            for run in reversed(runs):
                if run.final is not None and same(run.final, state):
                    return run, True
        return runs[-1], False

    def trajectory(self) -> tcd.Trajectory:
        """The last run. Raises ValueError before anything was sampled."""
        return self.run_of()[0].trajectory()


def recorded(model, with_reference: bool = False) -> tuple[object, Recorder]:
    """(a clone of the model that records its sampling, the recorder)."""
    model = model.clone()
    recorder = Recorder(model.get_model_object("latent_format"), with_reference)
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, RECORDER, recorder)
    options = model.model_options["transformer_options"]
    options[RECORDER] = (*options.get(RECORDER, ()), recorder)
    return model, recorder
