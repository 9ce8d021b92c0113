"""Pictures of trajectories. Needs matplotlib, which the rest of `tcd` does not. Of files: `python -m tcd.plot FILE`."""

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..trajectory import Trajectory
from .panels import DENOISE, DIFFUSE, GREEN, GREY, PURPLE, columns, measure, measures, plane, strip, zigzag

__all__ = ["DENOISE", "DIFFUSE", "GREEN", "GREY", "PURPLE", "draw", "plane", "strip", "to_array", "zigzag"]

WIDTH, DPI = 6.4, 160  # inches, and 1024 pixels: letters of 10 pixels in a node that is 500 pixels wide
STYLE = {
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@matplotlib.style.context(["default", STYLE])  # whatever the caller set for figures of their own
def draw(
    trajectory: Trajectory, frames: np.ndarray | None = None, noisy: np.ndarray | None = None, item: int = 0
) -> Figure:
    """Everything about one picture of the batch: noise level, path, pictures, measures.

    frames [n, H, W, 3] in [0, 1] are its clean predictions, noisy the states that the steps started from. Raises
    ValueError for frames of another shape, or an item beyond the batch.
    """
    steps, shown = len(trajectory), measures(trajectory, item)
    given = {"clean prediction x0": frames, "noisy state that the step started from": noisy}
    strips = {title: check_frames(title, part, steps) for title, part in given.items() if part is not None}
    across = 2 if steps <= 2 else 1  # strips side by side where they are short
    heights = [2.9, *[strip_height(part, across) for part in strips.values()][::across], 1.7]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
    rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    top = rows[0].subgridspec(1, 2, width_ratios=[4, 3])
    zigzag(figure.add_subplot(top[0]), trajectory)
    plane(figure.add_subplot(top[1]), trajectory, item)
    for i, (title, part) in enumerate(strips.items()):
        row = rows[1 + i // across].subgridspec(1, across)
        strip(figure.add_subplot(row[i % across]), part, title)
    bottom = rows[-1].subgridspec(1, max(2, len(shown)))
    for i, values in enumerate(shown):
        measure(figure.add_subplot(bottom[i]), values, steps)
    figure.draw_without_rendering()  # ticks take on the style when they are first drawn
    return figure


def check_frames(what: str, frames: np.ndarray, steps: int) -> np.ndarray:
    if frames.ndim != 4 or len(frames) != steps or frames.shape[3] != 3:
        raise ValueError(f"{what}: must be [{steps}, H, W, 3], a picture for each step; got {[*frames.shape]}")
    return frames


def strip_height(frames: np.ndarray, across: int) -> float:
    """Inches of a strip with its title and numbers."""
    steps, height, width, _ = frames.shape
    return min(WIDTH / across / columns(steps) * height / width, 3) + 0.45


def to_array(figure: Figure) -> np.ndarray:
    """The drawn figure as pixels [H, W, 3], float32 in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255
