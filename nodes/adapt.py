"""Between ComfyUI's units and tcd's: the only file that knows what a sigma or a model_sampling is.

A model's states are variance-exploding, x = x0 + sigma noise (eps, v, x0, EDM), or rectified flow, x = (1 - sigma) x0 +
sigma noise. Either way sigma itself is the time here: ComfyUI's tensors go to `tcd` and back without any conversion.
The model's own time, of which strategic stochastic sampling takes the part 1 - gamma, is told by a clock.
"""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import comfy.model_sampling as host
import torch
from torch import Tensor

from .. import tcd

FAMILIES_IN_WORDS = "SD 1.x, 2.x, SDXL, EDM, Stable Cascade, and rectified flow such as SD3, Flux and Lumina"


class Clock(ABC):
    """A model's own time, told by its `model_sampling`: 0 or less for clean data, growing with sigma."""

    clean = 0.0

    @abstractmethod
    def __init__(self, sampling): ...

    @property
    def steps(self) -> int:
        """Training steps, of which a continuous time has as many as Stable Diffusion."""
        return 1000

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """The model's time at a noise level."""

    @abstractmethod
    def sigma(self, time: Tensor) -> Tensor:
        """The noise level at a time of the model."""

    @abstractmethod
    def time_at(self, index: Tensor) -> Tensor:
        """The model's time at training step 0 .. steps - 1."""


class Discrete(Clock):
    """Whole timesteps. A time between two is taken down to the lower one, as the reference code does."""

    clean = -1.0

    def __init__(self, sampling):
        self.sampling = sampling

    @property
    def steps(self) -> int:
        """Not the length of the table, which has every 20th for LCM."""
        return int(self.sampling.timestep(self.sampling.sigma_max)) + 1

    def time(self, sigma: Tensor) -> Tensor:
        return self.sampling.timestep(sigma).float()

    def sigma(self, time: Tensor) -> Tensor:
        return self.sampling.sigma(time.floor())

    def time_at(self, index: Tensor) -> Tensor:
        return index


class Continuous(Clock):
    """The class's own `timestep`, in [0, 1], which its `sigma` inverts."""

    def __init__(self, sampling):
        self.sampling = sampling
        self.first, self.last = (float(sampling.timestep(end)) for end in (sampling.sigma_min, sampling.sigma_max))

    def time(self, sigma: Tensor) -> Tensor:
        return self.sampling.timestep(sigma)

    def sigma(self, time: Tensor) -> Tensor:
        times = time.flatten().unbind()  # some classes compare, so can take only one at a time
        return torch.stack([torch.as_tensor(self.sampling.sigma(one)).to(time) for one in times]).reshape(time.shape)

    def time_at(self, index: Tensor) -> Tensor:
        return self.first + index * ((self.last - self.first) / (self.steps - 1))


class Karras(Clock):
    """EDM: ComfyUI's timestep is ln(sigma) / 4, which has no zero. So: the steps of Karras et al. 2022, rho = 7.

    Consistency models on EDM were distilled on this grid.
    """

    def __init__(self, sampling):
        self.grid = tcd.VarianceExploding(float(sampling.sigma_min), float(sampling.sigma_max))

    def time(self, sigma: Tensor) -> Tensor:
        return self.grid.index_of(sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return self.grid.time_at(time)

    def time_at(self, index: Tensor) -> Tensor:
        return index


class Flow(Clock):
    """The unshifted time t of sigma = shift t / (1 + (shift - 1) t): gamma then means the same at every shift.

    The shift is read off the model's table of sigmas, as its classes write it differently. Raises ValueError for a
    table of another form.
    """

    def __init__(self, sampling):
        try:
            self.flow = tcd.RectifiedFlow.from_sigmas(sampling.sigmas)
        except ValueError as error:
            name = type(sampling).__bases__[0].__name__
            raise ValueError(f"TCD does not know the flow of {name}: it is not a shift") from error

    def time(self, sigma: Tensor) -> Tensor:
        return self.flow.time_of(((1 - sigma.double()) / sigma.double()).log()).to(sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return self.flow.sigma(time)

    def time_at(self, index: Tensor) -> Tensor:
        return self.flow.time_at(index)


# ComfyUI's class -> (its clock, what else the model must be: the two together say what a state is).
FAMILIES: dict[type, tuple[type[Clock], type | tuple[type, ...]]] = {
    host.ModelSamplingDiscrete: (Discrete, host.EPS),
    host.ModelSamplingDiscreteEDM: (Karras, host.EPS),
    host.ModelSamplingContinuousEDM: (Karras, host.EPS),
    host.ModelSamplingContinuousV: (Continuous, host.EPS),
    host.StableCascadeSampling: (Continuous, host.EPS),
    host.ModelSamplingCosmosRFlow: (Continuous, host.COSMOS_RFLOW),
    host.ModelSamplingDiscreteFlow: (Flow, host.CONST),
    host.ModelSamplingFlux: (Flow, host.CONST),
}


FLOW = tcd.RectifiedFlow()  # one for all runs: it remembers what it was asked

# Models that turn one picture into another, without noise; the second came after ComfyUI 0.3.75.
NOT_FROM_NOISE = tuple(getattr(host, name) for name in ("IMG_TO_IMG", "IMG_TO_IMG_FLOW") if hasattr(host, name))


@dataclass(frozen=True, eq=False)
class HostSchedule(tcd.Schedule):
    """A model's schedule in ComfyUI's units, with sigma for the time."""

    states: tcd.Schedule  # VarianceExploding or RectifiedFlow, both with sigma for the time
    clock: Clock
    noise_scale: float = 1.0  # some flow models have louder noise, on ComfyUI 0.21 and later

    clean = 0.0

    @property
    def first(self) -> float:
        return float(self.time_at(0.0))

    @property
    def last(self) -> float:
        return self.states.last

    @property
    def highest(self) -> float:
        return self.states.highest

    @property
    def steps(self) -> int:
        return self.clock.steps

    def levels(self, t: tcd.Time) -> tuple[tcd.schedule.Level, tcd.schedule.Level]:
        alpha, sigma = self.states.levels(t)
        return alpha, self.noise_scale * sigma

    def alpha(self, t: tcd.Time) -> Tensor:
        return self.states.alpha(t)

    def sigma(self, t: tcd.Time) -> Tensor:
        return self.noise_scale * self.states.sigma(t)

    def time_of(self, lam: tcd.Time) -> Tensor:
        return self.states.time_of(torch.as_tensor(lam) + math.log(self.noise_scale))

    def time_at(self, index: tcd.Time) -> Tensor:
        return self.clock.sigma(self.clock.time_at(torch.as_tensor(index, dtype=torch.float32)))

    def index_of(self, t: tcd.Time) -> Tensor:
        first, second = self.clock.time_at(torch.tensor([0.0, 1.0]))
        return (self.own_time(torch.as_tensor(t)) - first) / (second - first)

    def own_time(self, s: Tensor) -> Tensor:
        """The model's time at the noise level s, clean data's at 0."""
        return torch.where(s > 0, self.clock.time(s).to(s), self.clock.clean)

    def s_prime(self, s: tcd.Time, gamma: float | Tensor) -> Tensor:
        """s' = (1 - gamma) s in the model's own time (Algorithm 4), as a noise level, and never above s."""
        s = torch.as_tensor(s)
        time = self.clock.time(s)
        s_prime = self.clock.sigma(tcd.schedule.kept(gamma, time) * time).to(s)
        return torch.where((s == 0) | (torch.as_tensor(gamma) == 0), s, torch.minimum(s, s_prime))

    def as_diffusers(self, x: Tensor, s: float) -> Tensor:
        """A state at noise level s as diffusers would give it: variance-preserving where timesteps are discrete."""
        return x / (1 + s * s) ** 0.5 if isinstance(self.clock, Discrete) else x


def schedule_of(sampling) -> HostSchedule:
    """The schedule of a `model_sampling`. Raises ValueError, with its name, for a kind that TCD cannot serve."""
    known = (FAMILIES[base] for base in type(sampling).__mro__ if base in FAMILIES)
    clock, kind = next(known, (None, ()))
    if clock is None or not isinstance(sampling, kind) or isinstance(sampling, NOT_FROM_NOISE):
        name = " / ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(f"TCD sampling does not know models of the kind {name}; it serves {FAMILIES_IN_WORDS}")
    if isinstance(sampling, host.CONST):
        return HostSchedule(FLOW, clock(sampling), float(getattr(sampling, "noise_scale", 1.0)))
    return HostSchedule(tcd.VarianceExploding(float(sampling.sigma_min), float(sampling.sigma_max)), clock(sampling))


def schedule_of_model(model) -> HostSchedule:
    """The schedule of a MODEL, with every patch on it. Raises ValueError for a kind that TCD cannot serve."""
    return schedule_of(model.get_model_object("model_sampling"))


def sigmas_of(schedule: HostSchedule, steps: int, denoise: float, k: int) -> Tensor:
    """TCD's noise levels [steps + 1], from the distillation grid (k = 20) or the dense one (k = 1), down to 0.

    denoise < 1 takes the last `steps` of int(steps / denoise), as ComfyUI's own schedulers do. Raises ValueError where
    the grid has fewer times than that.
    """
    if denoise <= 0:
        return torch.zeros(0)
    try:
        levels = tcd.timesteps(schedule, max(steps, int(min(steps / denoise, 1e9))), k)
    except ValueError as error:
        raise ValueError(f"{steps} steps at denoise {denoise:g}: {error}; take fewer, or the dense grid") from None
    return torch.cat([levels[-steps:].cpu(), torch.zeros(1)])


def sigmas_at(schedule: HostSchedule, text: str) -> Tensor:
    """The noise levels of training timesteps that a person wrote, "999, 759, 499, 259", and 0: [count + 1].

    Flow models, whose time has no steps, count 0 .. 999 too. Raises ValueError unless they are whole and decrease.
    """
    words = re.split(r"[\s,;]+", text.strip())
    last = schedule.steps - 1
    for word in words:
        if not re.fullmatch(r"\d{1,9}", word) or int(word) > last:
            raise ValueError(f"times must be whole numbers from {last} (pure noise) to 0, got {word!r}")
    times = [int(word) for word in words]
    if any(after >= before for before, after in pairwise(times)):
        raise ValueError(f"times must decrease, got {text.strip()!r}")
    return torch.cat([schedule.time_at(torch.tensor(times)).cpu(), torch.zeros(1)])
