"""Plots of the page: panels of lines, with the spread over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tcd import plot
from training.save import replace as put

from .lab import NAMES, Measured

COLOURS = (plot.DENOISE, plot.DIFFUSE, plot.GREEN, plot.PURPLE, "#444444", plot.GREY)
MARKERS = "os^Dvx"


@dataclass(frozen=True)
class Line:
    """A labelled line through points (x, y), each with a spread of y, or none."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One plot: what its axes are, its lines, and whether an axis is logarithmic."""

    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    logx: bool = False
    logy: bool = False
    ticks: Sequence[float] = ()


def panels(xlabel: str, found: Mapping[str, Mapping[Any, Measured]], ticks: Sequence[float] = ()) -> list[Panel]:
    """Quality, detail and text against x, logarithmic where it has ticks: a line for each label, by x."""

    def line(label: str, by: Mapping[Any, Measured], measure: str) -> Line:
        values = [one.mean(measure) for one in by.values()]
        return Line(label, list(by), values, [one.spread(measure) for one in by.values()])

    return [
        Panel(xlabel, NAMES[measure], [line(*item, measure) for item in found.items()], logx=bool(ticks), ticks=ticks)
        for measure in ("frechet", "complexity", "retrieval")
    ]


def draw(axes: Axes, panel: Panel) -> None:
    for i, line in enumerate(panel.lines):
        style = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)], "markersize": 4, "lw": 1.3}
        axes.errorbar(line.x, line.y, line.spread, label=line.label, capsize=2, **style)
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    if panel.logx:
        axes.set_xscale("log")
    if panel.logy:
        axes.set_yscale("log")
    if panel.ticks:
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        axes.minorticks_off()
    axes.grid(alpha=0.25)


def figure(panels: Sequence[Panel]) -> Figure:
    """Panels side by side under one legend of all labels."""
    made = Figure(figsize=(4.1 * len(panels), 3.4), dpi=110, layout="constrained")
    seen = {}
    for axes, panel in zip(made.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, panel)
        handles, labels = axes.get_legend_handles_labels()
        seen |= dict(zip(labels, handles, strict=True))
    if len(seen) > 1:
        made.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=min(6, len(seen)), frameon=False)
    return made


@matplotlib.style.context(["default", plot.STYLE])  # also while it is saved, when ticks are made
def chart(images: Path, name: str, panels: Sequence[Panel]) -> str:
    """Write the figure as results_{name}.png below `images`; returns its Markdown."""
    path = images / f"results_{name}.png"
    put(path, lambda scratch: figure(panels).savefig(scratch, format="png"))
    return f"![{name.replace('_', ' ')}](images/{path.name})"
