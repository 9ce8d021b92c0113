"""Sections 4.1 and 4.2 of the first paper: discretisation error against order, distillation error against spacing."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

import tcd
from training.evaluate.report import cell, mean_and_spread

from ..charts import Line, Panel, chart
from ..claims import AGREES, DIFFERS, OPEN, Claim, all_of, tally, verdict
from ..lab import SINGLE, Lab
from ..page import Section, table
from ..recipes import W
from ..step_errors import (
    FEWER,
    FROM,
    ORDERS,
    SPACINGS,
    STARTS,
    STUDENTS,
    SUBSTEPS,
    WIDTHS,
    Found,
    exactly,
    long_ends,
    results,
    spacings,
    steps_between,
)

__all__ = ["STUDENTS", "TITLE", "run"]

TITLE = "Sections 4.1 and 4.2: discretisation and distillation error"
LABELS = {"teacher": "teacher, one step", "tcd": "TCD", "lcm": "LCM", "tcf2": "TCF(2)", "splus": "TCF(S+)"}
FITTED = 3  # so many of the smallest make the slope
TOLERANCE = 0.3  # of a slope
SHOWN = (50, 250)  # in the table, beside the longest


def seeds(found: Sequence[Found], name: str, t: int, end: int) -> list[float]:
    """The error of each seed."""
    return [one[name][str(t)][end] for one in found]


def slopes(found: Sequence[Found], tcf: str, t: int, widths: slice = slice(FITTED)) -> list[float]:
    """d log error / d log h of each seed, by least squares over some h: the smallest, or others."""
    logs = np.log(WIDTHS[widths])
    return [float(np.polyfit(logs, np.log(one[f"short {tcf}"][str(t)][widths]), 1)[0]) for one in found]


def near(values: Sequence[float], theory: float) -> str:
    """Whether slopes are what eq. 23 says: it agrees where all are within TOLERANCE, does not where none is.

    >>> near([1.9, 2.2], 2), near([1.0, 2.0], 2), near([1.0, 1.2], 2)
    ('agrees', 'inconclusive', 'does not')
    """
    right = [abs(value - theory) <= TOLERANCE for value in values]
    return AGREES if all(right) else OPEN if any(right) else DIFFERS


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's.

    >>> rank_correlation([1, 2, 3], [0.1, 0.2, 9.0]), rank_correlation([1, 2, 3], [3, 2, 1])
    (1.0, -1.0)
    """
    return round(float(np.corrcoef(rankdata(x), rankdata(y))[0, 1]), 6)


def line(found: Sequence[Found], label: str, name: str, t: int, x: Sequence[float]) -> Line:
    """Mean and spread of the errors over the seeds, against what x is of each end."""
    pairs = [mean_and_spread(seeds(found, name, t, end)) for end in range(len(x))]
    return Line(label, x, [mean for mean, _ in pairs], [spread or 0.0 for _, spread in pairs])


def guide(found: Sequence[Found], tcf: str, t: int) -> Line:
    """What eq. 23 makes of the error at the smallest h."""
    first, power = mean_and_spread(seeds(found, f"short {tcf}", t, 0))[0], ORDERS[tcf] + 1
    ends = [WIDTHS[0], WIDTHS[-1]]
    return Line(f"h^{power}", ends, [first * (h / WIDTHS[0]) ** power for h in ends])


def order_plot(lab: Lab, found: Sequence[Found]) -> str:
    panels = []
    for t in FROM:
        lines = [line(found, f"TCF({tcf})", f"short {tcf}", t, WIDTHS) for tcf in ORDERS]
        lines += [guide(found, tcf, t) for tcf in ORDERS]
        panels.append(Panel(f"h, from t = {t}", "discretisation error", lines, logx=True, logy=True))
    return chart(lab.images, "errors_order", panels)


def spacing_plot(lab: Lab, found: Sequence[Found]) -> str:
    panels = []
    for t in STARTS:
        lines = [line(found, label, name, t, spacings(t)) for name, label in LABELS.items()]
        label = "distance from the teacher's path"
        panels.append(Panel(f"spacing, t_n = {t}", label, lines, logx=True, logy=True, ticks=(50, 100, 250, 500, 1000)))
    return chart(lab.images, "errors_spacing", panels)


def order_table(found: Sequence[Found]) -> str:
    """Slopes, at short steps and between the two longest of them."""
    lines = [
        [str(t), *(cell(slopes(found, tcf, t, part)) for tcf in ORDERS for part in (slice(FITTED), slice(-2, None)))]
        for t in FROM
    ]
    small, large = f"h up to {WIDTHS[FITTED - 1]:g}", f"h from {WIDTHS[-2]:g} to {WIDTHS[-1]:g}"
    return table(["t", *(f"TCF({tcf}), {part}" for tcf in ORDERS for part in (small, large))], lines)


def long_table(found: Sequence[Found], sched: tcd.Schedule) -> str:
    """TCF(1) and TCF(2) where steps are as long as those of sampling."""
    t, lines = STARTS[0], []
    for i, end in enumerate(long_ends(sched)):
        to = "clean data" if end == sched.clean else f"{end:g}"
        h = sched.lam(exactly(end)) - sched.lam(exactly(t))
        lines.append([to, f"{h.item():.3g}", *(cell(seeds(found, f"long {tcf}", t, i)) for tcf in ORDERS)])
    return table([f"from t = {t} to", "h", *(f"TCF({tcf})" for tcf in ORDERS)], lines)


def spacing_table(found: Sequence[Found]) -> str:
    """Some spacings from every t_n, and the longest, to clean data."""
    lines = []
    for t in STARTS:
        for end, spacing in enumerate(spacings(t)):
            if spacing in SHOWN or spacing == t + 1:
                lines.append([f"{t}, {spacing}", *(cell(seeds(found, name, t, end)) for name in LABELS)])
    return table(["t_n, spacing", *LABELS.values()], lines)


def pays_from(found: Sequence[Found], t: int) -> str:
    """The spacing from which on TCD's step is nearer to the path than the teacher's own."""
    tcd_errors, own = (line(found, name, name, t, spacings(t)).y for name in ("tcd", "teacher"))
    nearer = [a < b for a, b in zip(tcd_errors, own, strict=True)]
    from_here = [spacing for i, spacing in enumerate(spacings(t)) if all(nearer[i:])]
    return f"{from_here[0] if from_here else 'none'} (t_n = {t})"


def order_claims(found: Sequence[Found]) -> list[Claim]:
    """Eq. 23: slopes that are near k + 1."""
    made = []
    for tcf, k in ORDERS.items():
        by_time = {t: slopes(found, tcf, t) for t in FROM}
        made.append(
            Claim(
                "section 4.2, eq. 23",
                f"TCF({tcf}) has a discretisation error of O(h^{k + 1})",
                f"slope {', '.join(f'{cell(values)} (t = {t})' for t, values in by_time.items())}",
                all_of([near(values, k + 1) for values in by_time.values()]),
            )
        )
    return made


def width_claims(found: Sequence[Found]) -> list[Claim]:
    """Section 4.1: shorter is better, and so is the higher order where it is short."""
    shorter = [
        verdict(seeds(found, f"short {tcf}", t, end), seeds(found, f"short {tcf}", t, end + 1))
        for tcf in ORDERS
        for t in FROM
        for end in range(len(WIDTHS) - 1)
    ]
    higher = [
        verdict(seeds(found, "short 2", t, end), seeds(found, "short 1", t, end))
        for t in FROM
        for end in range(len(WIDTHS))
    ]
    widths = f"h from {WIDTHS[-1]:g} to {WIDTHS[0]:g}"
    return [
        Claim(
            "section 4.1",
            "At the same order the error decreases as the interval between s and t reduces",
            f"{widths}, each against the next: {tally(shorter)}",
            all_of(shorter),
        ),
        Claim(
            "section 4.1",
            "With short intervals the error decreases as the order increases",
            f"TCF(2) against TCF(1), {widths}: {tally(higher)}",
            all_of(higher),
        ),
    ]


def spacing_claims(found: Sequence[Found]) -> list[Claim]:
    """Section 4.2: (t_n - t_m) instead of (t_n - t_0)."""
    ranks = {t: [rank_correlation(spacings(t), one["tcd"][str(t)]) for one in found] for t in STARTS}
    shorter = [verdict(seeds(found, "tcd", t, 0), seeds(found, "tcd", t, -1)) for t in STARTS]
    other = [
        verdict(seeds(found, "tcd", t, end), seeds(found, "lcm", t, -1))
        for t in STARTS
        for end in range(len(spacings(t)) - 1)
    ]
    return [
        Claim(
            "section 4.2",
            "A shorter spacing t_n - t_m reduces TCD's distillation error from that of t_n - t_0",
            f"spacing {SPACINGS[0]} against the longest: {tally(shorter)}; rank correlation of error and spacing "
            + ", ".join(f"{cell(values)} (t_n = {t})" for t, values in ranks.items()),
            all_of(shorter),
        ),
        Claim(
            "section 4.2",
            "Steps that end on the way have less distillation error than a consistency model's, which go to the origin",
            f"TCD from t_n to every t_m on the way against LCM from t_n to clean data: {tally(other)}",
            all_of(other),
        ),
    ]


TEXT = """How far one step lands from the exact path: the mean over captions of the root mean square over a latent's
numbers. On a variance-preserving path these have a root mean square of about 1 at every time, so that errors at
different times compare. The exact path is the guided teacher's (w = {w:g}), from the noise of table 1's pictures, by
DPM-Solver++(2S) in {steps} steps; steps begin at its states.

**Discretisation error** (eq. 23): one step of TCF(1) and TCF(2) with the guided teacher's own prediction, {few}
captions for each of {seeds} seeds. The teacher and its path, in {substeps} steps from one h to the next, are in double
precision: where h is small, rounding to single is more than the error. The slope is that of a straight line through log
error against log h, for the {fitted} smallest h, of no more than about one training step. The rule: a claim agrees
where every seed's slope from every t is within {tolerance:g} of k + 1; it does not where from some t no seed's is; else
it is inconclusive."""
WAVES = """Above those h the error of TCF(2) keeps to no power for a while: along the path the prediction has waves of a
few training steps (the fastest one of the network's time embedding has a period of 2 pi of them), and a Taylor
expansion holds within a wave only. The steps of sampling are far longer. No theory tells their error; measured, from
noise:"""
DISTILLED = """**Distillation error** (section 4.2): one step of each student from the path's state at t_n to t_m,
against the path's state there, {probes} captions for each of {seeds} seeds, by the spacing t_n - t_m; the longest is to
clean data. The teacher's one step is guided TCF(1), with which students begin: what they are below it, distillation
took away. LCM learns to jump to clean data alone; on the way its prediction is put into eq. 21, as TCD's is."""
BOUND = """From these spacings on TCD's step lands nearer to the path than the teacher's own: {pays}. The paper's bound
holds for a student whose loss is zero, and these are not: they learn a range of guidance at once, of which w is the
middle, and from noised pictures, not from states of the teacher's path. An error of the clean prediction that is the
same for every end makes a step's error grow with the spacing too, so that the claims' directions are no proof of the
bound."""


def run(lab: Lab) -> Section:
    found, scale, sched = results(lab), lab.scale, lab.bench(SINGLE).models.sched
    probes = min(scale.probes, len(lab.bench(SINGLE).texts))
    text = TEXT.format(
        w=W,
        steps=sum(steps_between(sched, scale.fine)),
        few=math.ceil(probes / FEWER),
        seeds=len(scale.seeds),
        substeps=SUBSTEPS,
        fitted=FITTED,
        tolerance=TOLERANCE,
    )
    parts = [
        text,
        order_plot(lab, found),
        order_table(found),
        WAVES,
        long_table(found, sched),
        DISTILLED.format(probes=probes, seeds=len(scale.seeds)),
        spacing_plot(lab, found),
        spacing_table(found),
        BOUND.format(pays=", ".join(pays_from(found, t) for t in STARTS)),
    ]
    return Section(TITLE, "\n\n".join(parts), order_claims(found) + width_claims(found) + spacing_claims(found))
