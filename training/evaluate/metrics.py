"""The columns of the table. A new one is a line of METRICS; those of tcd.scores are there by themselves."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tcd

from ..host.loading import function_of
from .options import EvaluateOptions
from .pictures import Pictures
from .probes import Probe

WEIGHTS = "weights"  # the argument of a function of tcd.scores that is a file


@dataclass(frozen=True)
class Tools:
    """What metrics need besides pictures, as the options say."""

    opts: EvaluateOptions

    @property
    def device(self) -> str:
        """Where published networks compute."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def weights(self) -> dict[str, str]:
        """The weights of published networks, by metric. Raises ValueError for what is not metric=path."""
        found = dict[str, str]()
        for text in self.opts.weights:
            name, equals, path = text.partition("=")
            if not equals or name not in tcd.scores.SCORES or name in found:
                allowed = ", ".join(tcd.scores.SCORES)
                raise ValueError(f"weights must be metric=path, each of {allowed} once; got {text!r}")
            if not Path(path).exists():
                raise ValueError(f"weights of {name} do not exist: {path!r}")
            found[name] = path
        return found

    @cached_property
    def features(self) -> Callable[[Pictures], Tensor]:
        """The features [n, d] of pictures, computed once for each. Raises ValueError for features that are none."""
        extract = function_of("features", self.opts.features)

        @cache
        def described(pictures: Pictures) -> Tensor:
            found = []
            for batch in pictures:
                found.append(extract(batch))
                if found[-1].ndim != 2 or len(found[-1]) != len(batch):
                    shape = [*found[-1].shape]
                    raise ValueError(f"features {self.opts.features} must give [{len(batch)}, D], gave {shape}")
            return torch.cat(found)

        return described


@dataclass(frozen=True)
class Subject:
    """What is measured: the pictures of one row and seed, and what they are compared with."""

    tools: Tools
    pictures: Pictures
    captions: list[str]
    reference: Pictures | None = None
    probe: Probe | None = None


@dataclass(frozen=True)
class Metric:
    """A column: how it is measured, what it needs, and what is better, "lower" or "higher", if that can be said."""

    measure: Callable[[Any], float]  # of a Subject, or of its Probe
    better: str = ""
    reference: bool = False  # needs pictures to compare with
    probe: bool = False  # looks into a student, not at pictures
    needs: str = ""  # the option without which there is nothing to measure with
    steps: int = 1  # that a row has at least

    def applies(self, subject: Subject) -> bool:
        """Whether there is such a number for this row."""
        return not self.probe or (subject.probe is not None and subject.probe.row.steps >= self.steps)

    def __call__(self, subject: Subject) -> float:
        return self.measure(subject.probe if self.probe else subject)


def mean(measure: Callable[[Tensor], Tensor]) -> Callable[[Subject], float]:
    """The mean of measure(images [B, H, W, 3]) -> [B] over all pictures."""
    return lambda subject: torch.cat([measure(batch) for batch in subject.pictures]).mean().item()


def frechet(subject: Subject) -> float:
    """Between the features of the pictures and of those that they are compared with."""
    assert subject.reference is not None
    described = subject.tools.features
    return tcd.metrics.frechet_distance(described(subject.pictures), described(subject.reference))


def score(name: str) -> Metric:
    """A function of tcd.scores, given the arguments that it asks for by name."""
    function = tcd.scores.SCORES[name]
    wanted = inspect.signature(function).parameters

    def measure(subject: Subject) -> float:
        known = {"images": subject.pictures, "reference": subject.reference, "captions": subject.captions}
        known |= {WEIGHTS: subject.tools.weights[name], "device": subject.tools.device}
        found = function(**{argument: known[argument] for argument in wanted})
        return torch.as_tensor(found, dtype=torch.float32).mean().item()

    distance = "reference" in wanted
    better = "lower" if distance else "higher" if "captions" in wanted else ""
    return Metric(measure, better, reference=distance, needs=WEIGHTS)


METRICS = {
    "frechet": Metric(frechet, "lower", reference=True, needs="features"),
    "ode_error": Metric(Probe.ode_error, "lower", probe=True),
    "self_consistency": Metric(Probe.self_consistency, "lower", probe=True),
    "drift": Metric(Probe.drift, "lower", probe=True, steps=2),
    "high_frequency_energy": Metric(mean(tcd.metrics.high_frequency_energy)),
    "compressed_size": Metric(mean(tcd.metrics.compressed_size)),
    **{name: score(name) for name in tcd.scores.SCORES},
}


def check(opts: EvaluateOptions) -> dict[str, Metric]:
    """The wanted metrics. Raises ValueError for an unknown one, and for what one lacks or none needs."""
    chosen = {name: tcd.choose(METRICS, "metrics", name) for name in opts.metrics}
    if len(chosen) != len(opts.metrics):
        raise ValueError(f"metrics must each be there once, got {' '.join(opts.metrics)}")
    tools = Tools(opts)
    for name, metric in chosen.items():
        if metric.needs == WEIGHTS and name not in tools.weights:
            raise ValueError(f"metric {name} needs its network: --weights {name}=PATH (nothing is downloaded)")
        if metric.needs == "features" and not opts.features:
            raise ValueError(f"metric {name} needs --features package.module:function, images [B, H, W, 3] -> [B, D]")
    if idle := [name for name in tools.weights if name not in chosen]:
        raise ValueError(f"weights of {idle[0]} have no effect unless metrics has {idle[0]}")
    if opts.features and "frechet" not in chosen:
        raise ValueError("features has no effect unless metrics has frechet")
    if opts.real_data and not any(metric.reference for metric in chosen.values()):
        raise ValueError("real_data has no effect unless metrics has one that compares pictures, such as frechet")
    if "self_consistency" in chosen and opts.teacher_steps < 2:
        raise ValueError(f"self_consistency needs teacher_steps 2 at least, got {opts.teacher_steps}")
    return chosen
