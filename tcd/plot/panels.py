"""The parts of a trajectory's picture: each is drawn into axes that the caller made."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from ..trajectory import Trajectory

# Blue, vermilion, bluish green and reddish purple of Okabe and Ito, told apart by everybody; and a light grey.
DENOISE, DIFFUSE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#BBBBBB"
UNITS = {"t": ("timestep", "linear"), "sigma": ("noise level sigma", "log")}
MOST = 8  # pictures of a strip: more of them would be too small
GAP = 0.03  # of a picture's width, at each of its sides


def marker_size(steps: int) -> float:
    """Small enough that neighbours do not touch."""
    return float(np.clip(60 / steps, 2, 6))


def legend_above(axes: Axes) -> None:
    """Where no line is, whatever the trajectory."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, frameon=False, handlelength=1.8)


def name_point(axes: Axes, name: str, x: float, y: float, side: str) -> None:
    """A word to the left or right of a point, legible on lines."""
    offset, ha = {"left": (-7, "right"), "right": (7, "left")}[side]
    halo = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    axes.annotate(
        name, (x, y), (offset, 0), textcoords="offset points", ha=ha, va="center", fontsize=9, path_effects=halo
    )


def step_axis(axes: Axes, steps: int) -> None:
    """Horizontal axis from 0, the start, to the number of steps."""
    axes.set(xlabel="step", xlim=(-0.04 * steps - 0.1, 1.04 * steps + 0.1))
    axes.xaxis.set_major_locator(MaxNLocator(min(steps, 8) + 1, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)


def noise_axis(axes: Axes, unit: str, levels: np.ndarray) -> None:
    """Vertical axis of the noise level, with plain numbers."""
    label, scale = UNITS[unit]
    axes.set(yscale=scale, ylabel=label)
    if scale == "log":
        decade = levels.max() >= 10 * levels.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)) if decade else MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def ends_clean(trajectory: Trajectory) -> bool:
    """Whether the last step landed on clean data. A timestep 0 may be that, or the smallest noise level."""
    lands_on_prediction = torch.equal(trajectory.x_s[-1], trajectory.x0[-1])
    return bool(trajectory.s[-1] <= 0) and (trajectory.unit == "sigma" or lands_on_prediction)


def legs(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Coordinates [3 n] of n strokes that do not hang together, as one line: nan lifts the pen."""
    return np.stack([starts, ends, np.full(len(starts), np.nan)], 1).ravel()


def zigzag(axes: Axes, trajectory: Trajectory) -> None:
    """The paper's figure 2b: every step goes down from t to s' and, by adding noise, up to s."""
    levels = np.stack([getattr(trajectory, key).double().numpy() for key in ("t", "s_prime", "s")])
    if trajectory.unit == "sigma":  # clean data is drawn below the lowest level, as a logarithmic axis has no 0
        levels = np.maximum(levels, levels[levels > 0].min(initial=1) / 2)
    t, s_prime, s = levels
    step, noised, size = np.arange(1.0, len(t) + 1), s > s_prime, marker_size(len(t))
    (down,) = axes.plot(legs(step - 1, step), legs(t, s_prime), color=DENOISE, marker="o", label="denoise: t to s'")
    down.set_markersize(size)
    if noised.any():
        at, heights = legs(step[noised], step[noised]), legs(s_prime[noised], s[noised])
        (up,) = axes.plot(at, heights, color=DIFFUSE, ls="--", marker="^", label="add noise: s' to s")
        up.set(markersize=size, markevery=(1, 3))  # at the upper ends
    if ends_clean(trajectory):
        name_point(axes, "clean", len(t), s[-1], "right")
    noise_axis(axes, trajectory.unit, levels)
    step_axis(axes, len(t))
    legend_above(axes)


def plane(axes: Axes, trajectory: Trajectory, item: int = 0) -> None:
    """The way of one picture's states in the plane where they spread the most, and the deterministic path."""
    found, size = trajectory.plane(item), marker_size(len(trajectory))
    x, y = found.path.T.numpy()
    axes.plot(x, y, color=DENOISE, marker="o", markersize=size, label="as sampled")
    name_point(axes, "start", x[0], y[0], "left")
    name_point(axes, "end", x[-1], y[-1], "right")
    if found.reference is not None:
        x, y = found.reference.T.numpy()
        name = "without noise (gamma 0)"
        axes.plot(x, y, color=GREEN, ls="--", marker="s", markersize=0.7 * size, label=name)
    first, second = (f"{share:.0%}" for share in found.explained.tolist())
    axes.set(xlabel=f"main direction: {first} of spread", ylabel=f"second direction: {second}")
    axes.margins(0.45, 0.15)  # place for the two words
    axes.locator_params(nbins=4)
    axes.grid(alpha=0.25)
    legend_above(axes)


def columns(steps: int) -> int:
    """Places of a strip, some empty where there are few steps, lest a lone picture be huge."""
    return 2 if steps <= 2 else int(np.clip(steps, 4, MOST))


def strip(axes: Axes, frames: np.ndarray, title: str) -> None:
    """Pictures [n, H, W, 3] side by side, numbered by step; of many, some that are evenly spread."""
    steps, height, width, _ = frames.shape
    top = (1 - 2 * GAP) * height / width
    shown = np.unique(np.linspace(0, steps - 1, MOST).round().astype(int))
    for place, i in enumerate(shown):
        axes.imshow(np.clip(np.nan_to_num(frames[i]), 0, 1), extent=(place + GAP, place + 1 - GAP, 0, top))
        axes.annotate(f"step {i + 1}", (place + 0.5, 0), (0, -3), textcoords="offset points", ha="center", va="top")
    axes.set(xlim=(0, columns(steps)), ylim=(0, top), anchor="W")
    axes.set_title(title, loc="left")
    axes.set_axis_off()


class Measure(NamedTuple):
    """A number per step, and how to draw it."""

    title: str
    unit: str
    colour: str
    steps: np.ndarray
    values: np.ndarray


def measures(trajectory: Trajectory, item: int = 0) -> list[Measure]:
    """What there is to measure: not the change of a single step, nor the distance to a path that was not recorded."""
    one = trajectory.item(item)
    n, distance = len(one), one.distance()
    found = []
    if n > 1:
        found.append(Measure("change of prediction", "rms", DENOISE, np.arange(2, n + 1), one.drift()[:, 0].numpy()))
    if distance is not None:
        found.append(Measure("distance to gamma 0", "part of size", GREEN, np.arange(n + 1), distance[:, 0].numpy()))
    if one.x0.ndim > 3:  # points have no detail
        found.append(Measure("fine detail", "part of energy", PURPLE, np.arange(1, n + 1), one.detail()[:, 0].numpy()))
    return found


def measure(axes: Axes, shown: Measure, steps: int) -> None:
    """One measure along the trajectory's steps."""
    size, finite = marker_size(steps), shown.values[np.isfinite(shown.values)]
    axes.plot(shown.steps, shown.values, color=shown.colour, marker="o", markersize=size, clip_on=False)
    axes.set(ylabel=shown.unit, ylim=(0, 1.1 * finite.max(initial=0) or 1))
    axes.set_title(shown.title, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if shown.unit.startswith("part"):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    step_axis(axes, steps)
