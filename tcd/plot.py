"""Pictures of trajectories. Needs matplotlib, which the rest of `tcd` does not."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .trajectory import Trajectory

DENOISE, DIFFUSE = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito: told apart by everybody
UNITS = {"t": ("timestep", "linear"), "sigma": ("noise level sigma", "log")}


def zigzag(axes: Axes, trajectory: Trajectory) -> None:
    """The paper's figure 2b: every step goes down from t to s' and, by adding noise, up to s."""
    label, scale = UNITS[trajectory.unit]
    levels = np.stack([getattr(trajectory, key).double().numpy() for key in ("t", "s_prime", "s")], 1)
    clean = levels[-1, 2] <= 0
    if scale == "log":
        levels = np.maximum(levels, levels[levels > 0].min() / 2)  # clean data, drawn just below the lowest level
    for i, (t, s_prime, s) in enumerate(levels):
        axes.plot([i, i + 1], [t, s_prime], color=DENOISE, marker="o", label="denoise: t to s'" if i == 0 else None)
        if s > s_prime:
            named = None if axes.get_legend_handles_labels()[1][1:] else "add noise: s' to s"
            axes.plot([i + 1, i + 1], [s_prime, s], color=DIFFUSE, ls="--", marker="^", label=named)
    if clean:
        axes.annotate("clean", (len(levels), levels[-1, 2]), (0, 9), textcoords="offset points", ha="center")
    axes.set(yscale=scale, ylabel=label, xlabel="step")
    axes.set_xticks(range(len(levels) + 1))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper right")


def strip(axes: Axes, frames: np.ndarray) -> None:
    """Pictures [n, H, W, 3] side by side, under the step that predicted them."""
    for i, frame in enumerate(frames):
        axes.imshow(frame, extent=(i + 0.03, i + 0.97, 0, 0.94 * frame.shape[0] / frame.shape[1]))
    axes.set(xlim=(0, len(frames)), ylim=(0, 1), xlabel="clean prediction x0 of each step")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw(trajectory: Trajectory, frames: np.ndarray | None = None) -> Figure:
    """Zigzag of the noise level and, with frames [n, H, W, 3] in [0, 1], the strip of clean predictions."""
    rows = 1 if frames is None else 2
    figure = Figure(figsize=(8, 4.5 if rows == 1 else 6.5), dpi=100, layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, height_ratios=[3] if rows == 1 else [3, 2])[:, 0]
    zigzag(axes[0], trajectory)
    axes[0].set_title(f"{len(trajectory)} steps")
    if frames is not None:
        strip(axes[1], frames)
    return figure


def to_array(figure: Figure) -> np.ndarray:
    """The drawn figure as pixels [H, W, 3], float32 in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255
