"""Figures 5 and 6 of the first paper: what gamma does."""

from ..charts import chart, panels
from ..claims import Claim, all_of, verdict
from ..lab import NAMES, Lab, Measured, student_row
from ..page import Section, table

TITLE = "Figures 5 and 6: gamma"
STUDENTS = ("tcd", "lcm")
GAMMAS = tuple(i / 10 for i in range(11))
STEPS = (4, 8)

Sweep = dict[int, dict[float, Measured]]  # by steps, then gamma


def results(lab: Lab) -> Sweep:
    bench, lora = lab.bench(), lab.student("tcd")
    return {n: {g: bench.measure(student_row(lora, n, g)) for g in GAMMAS} for n in STEPS}


def plots(lab: Lab, found: Sweep) -> str:
    return chart(lab.images, "gamma", panels("gamma", {f"{n} steps": by for n, by in found.items()}))


def best(found: Sweep, steps: int) -> float:
    """The gamma of the smallest mean Frechet distance."""
    return min(GAMMAS, key=lambda gamma: found[steps][gamma].mean("frechet"))


def claims(found: Sweep) -> list[Claim]:
    made = []
    for n in STEPS:
        by, top = found[n], best(found, n)
        made.append(
            Claim(
                "section 5.3, figures 5 and 6 (b)",
                f"With gamma the visual complexity grows ({n} steps)",
                f"energy of detail from gamma 0 to 1: {by[0.0].cell('complexity')} to {by[1.0].cell('complexity')}, "
                f"highest at {max(GAMMAS, key=lambda gamma: by[gamma].mean('complexity')):g}",
                all_of([verdict(by[0.0].values["complexity"], by[g].values["complexity"]) for g in (0.5, 1.0)]),
            )
        )
        made.append(
            Claim(
                "section 5.3, figure 6 (a)",
                f"Without noise, gamma 0, the Frechet distance is worse than with some ({n} steps)",
                f"at gamma 0 {by[0.0].cell('frechet')}, best at gamma {top:g} with {by[top].cell('frechet')}",
                verdict(by[top].values["frechet"], by[0.0].values["frechet"]) if top else "does not",
            )
        )
        made.append(
            Claim(
                "section 4.3",
                f"All noise, gamma 1, is worse than some ({n} steps)",
                f"at gamma 1 {by[1.0].cell('frechet')}, best at gamma {top:g} with {by[top].cell('frechet')}",
                verdict(by[top].values["frechet"], by[1.0].values["frechet"]) if top < 1 else "does not",
            )
        )
    return made


def run(lab: Lab) -> Section:
    found = results(lab)
    lines = [
        [f"{gamma:g}", *(found[n][gamma].cell(measure) for n in STEPS for measure in ("frechet", "complexity"))]
        for gamma in GAMMAS
    ]
    heading = ["gamma", *(f"{NAMES[m]}, {n} steps" for n in STEPS for m in ("frechet", "complexity"))]
    rows = {"LCM, 4 steps": student_row(lab.student("lcm"), 4)}
    rows |= {f"gamma {gamma:g}, 4 steps": student_row(lab.student("tcd"), 4, gamma) for gamma in GAMMAS[::2]}
    text = "The TCD student of table 1 at 4 and 8 steps; everything else as there."
    parts = [text, plots(lab, found), table(heading, lines), lab.sheet("gamma_sheet", rows)]
    return Section(TITLE, "\n\n".join(parts), claims(found))
