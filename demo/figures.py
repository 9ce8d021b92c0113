"""The pictures of docs/tcd.md, on the exactly solved problem of demo/mixture.py.

    python -m demo.figures            # writes docs/images/{order,sampling,losses}.png in some minutes

It also prints the distances of the table there.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import tcd
from demo.mixture import METHODS, SCHED, SEED, Mixture, Student, distil, draw, measure, petals, reference
from tcd import plot

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
GREY, GREEN, PURPLE = plot.GREY, plot.GREEN, plot.PURPLE
SOLVERS = {  # solver -> (name, marker, colour)
    "ddim": ("TCF(1) = DDIM", "o", plot.DENOISE),
    "dpmpp_2s": ("TCF(2) = DPM++(2S)", "s", plot.DIFFUSE),
    "euler": ("Euler", "^", GREEN),
    "heun": ("Heun", "D", PURPLE),
}


def panel(axes: Axes, title: str) -> None:
    axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=9)


def order(teacher: Mixture) -> Figure:
    """How the error of a whole path falls with its steps, for every solver: the slope is the order."""
    figure = Figure(figsize=(5, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    t, s = torch.tensor(700.0, dtype=torch.float64), torch.tensor(50.0, dtype=torch.float64)
    x0 = teacher.draw(500, torch.Generator().manual_seed(SEED)).double()
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
    x = tcd.add_noise(SCHED, x0, noise, t)
    exact = tcd.solve(teacher.x0, SCHED, x, t, s, 4000, "dpmpp_2s")
    counts = [5, 10, 20, 40, 80, 160]
    for solver, (name, marker, colour) in SOLVERS.items():
        ends = (tcd.solve(teacher.x0, SCHED, x, t, s, count, solver) for count in counts)
        errors = [(end - exact).square().mean().sqrt() for end in ends]
        axes.loglog(counts, errors, marker=marker, color=colour, label=name)
    axes.set(xlabel="steps from t = 700 to s = 50", ylabel="root mean square error")
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def sampling(teacher: Mixture, student: Student) -> Figure:
    """Four steps of strategic stochastic sampling at three gammas: below the paths, above the noise levels."""
    gammas = (0.0, 0.3, 1.0)
    figure = Figure(figsize=(9, 5.6), dpi=100, layout="constrained")
    grid = figure.subplots(2, 3, height_ratios=[2, 3])
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(SEED + 4))
    for (above, below), gamma in zip(grid.T, gammas, strict=True):
        generator = torch.Generator().manual_seed(SEED + 5)
        with torch.no_grad():
            steps = tcd.sample(student.plain, SCHED, x, tcd.timesteps(SCHED, 4), gamma, "1", generator)
            path = tcd.Trajectory.record(steps)
        plot.zigzag(above, path)
        above.spines[["right", "top"]].set_visible(False)
        below.scatter(*reference(teacher, 1500).T, s=1, color=GREY)
        states = (part.flatten(0, 1) for part in (path.x_t, path.x_s_prime, path.x_s))
        for start, middle, end in zip(*states, strict=True):
            below.plot(*torch.stack([start, middle]).T, color=plot.DENOISE, lw=1)
            below.plot(*torch.stack([middle, end]).T, color=plot.DIFFUSE, lw=1, ls="--")
        below.scatter(*path.final.T, s=14, color="black", zorder=3)
        panel(below, f"gamma = {gamma:g}")
    return figure


def losses(teacher: Mixture, students: dict[str, Student]) -> Figure:
    """Samples of every student, and of DDIM with the exact teacher, in one and in four steps, over the data."""
    figure = Figure(figsize=(2 * (len(students) + 1), 4.6), dpi=100, layout="constrained")
    for row, steps in zip(figure.subplots(2, len(students) + 1), (1, 4), strict=True):
        samples = {"exact teacher, DDIM": draw(teacher.x0, steps, 1500)}
        samples |= {name: METHODS[name].draw(student, steps, 1500) for name, student in students.items()}
        for axes, (name, made) in zip(row, samples.items(), strict=True):
            axes.scatter(*reference(teacher, 1500).T, s=1, color=GREY)
            axes.scatter(*made.T, s=1, color=plot.DENOISE, alpha=0.5)
            panel(axes, f"{name}\n{steps} step{'s' if steps > 1 else ''}")
    return figure


def main() -> None:
    teacher, students = petals(), {}
    for name, method in METHODS.items():
        students[name] = distil(method.loss, teacher)
        for steps in (1, 4):
            ours, ddim = measure(name, students[name], teacher, steps)
            print(f"| {name} | {steps} | {ours:.3f} | {ddim:.3f} |")
    order(teacher).savefig(FOLDER / "order.png")
    sampling(teacher, students["TCF(1)"]).savefig(FOLDER / "sampling.png")
    losses(teacher, students).savefig(FOLDER / "losses.png")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
