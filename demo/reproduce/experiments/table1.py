"""Table 1 and figure 4 of the first paper: TCD against the teacher's solvers and LCM."""

from training.evaluate.rows import Row

from ..charts import chart, panels
from ..claims import Claim, all_of, tally, verdict
from ..lab import NAMES, TEACHER, Lab, Measured, student_row
from ..page import Section, table
from ..recipes import W

TITLE = "Table 1: TCD, LCM and the teacher's solvers"
STUDENTS = ("tcd", "lcm")
EVALUATIONS = (2, 4, 8, 20)
LABELS = {"euler": "Euler", "ddim": "DDIM", "dpmpp_2s": "DPM++(2S)", "lcm": "LCM", "tcd": "TCD"}
STEP = {"euler": 2, "ddim": 2, "dpmpp_2s": 4}  # evaluations of a guided step: two for each time that it looks at

By = dict[int, Measured]  # by evaluations of the network


def rows(lab: Lab, method: str) -> dict[int, Row]:
    """The rows of a method by evaluations; a solver has them to twice as many, as the paper counts (see TEXT)."""
    if method in STUDENTS:
        return {count: student_row(lab.student(method), count) for count in EVALUATIONS}
    counts = sorted({*EVALUATIONS, *(2 * count for count in EVALUATIONS)})
    return {count: Row(method, count // STEP[method], W) for count in counts if count % STEP[method] == 0}


def results(lab: Lab) -> dict[str, By]:
    bench = lab.bench()
    return {method: {n: bench.measure(row) for n, row in rows(lab, method).items()} for method in LABELS}


def tables(found: dict[str, By]) -> str:
    """A table for every measure: a row for a method, a column for a number of evaluations."""
    counts = sorted({count for by in found.values() for count in by})
    parts = []
    for measure, name in NAMES.items():
        lines = [
            [LABELS[method], *(by[n].cell(measure) if n in by else "-" for n in counts)] for method, by in found.items()
        ]
        parts.append(f"**{name}**, by evaluations of the network\n\n" + table(["method", *map(str, counts)], lines))
    return "\n\n".join(parts)


def plots(lab: Lab, found: dict[str, By]) -> str:
    shown = {LABELS[method]: {n: by[n] for n in EVALUATIONS if n in by} for method, by in found.items()}
    return chart(lab.images, "table1", panels("evaluations", shown, EVALUATIONS))


def sheets(lab: Lab) -> str:
    """Figure 4: the same captions and noise at 4 and at 20 evaluations."""
    made = {}
    for count in (4, 20):
        for method in ("ddim", "dpmpp_2s", "lcm", "tcd"):
            made[f"{LABELS[method]}, {count} evaluations"] = rows(lab, method)[count]
    return lab.sheet("table1_sheet", made | {f"teacher, {TEACHER.steps} guided steps": TEACHER})


def against_solvers(found: dict[str, By], factor: int) -> list[str]:
    """TCD with 2 and 4 steps against every solver with `factor` times its evaluations, one verdict each."""
    pairs = [
        (found["tcd"][n], found[solver][factor * n]) for solver in STEP for n in (2, 4) if factor * n in found[solver]
    ]
    return [verdict(ours.values["frechet"], theirs.values["frechet"]) for ours, theirs in pairs]


def numbers(found: dict[str, By], method: str, measure: str, counts=EVALUATIONS) -> str:
    return ", ".join(found[method][n].cell(measure) for n in counts)


def claims(found: dict[str, By], teacher: Measured) -> list[Claim]:
    tcd, lcm = found["tcd"], found["lcm"]
    equal, paper = against_solvers(found, 1), against_solvers(found, 2)
    by_lcm = [verdict(tcd[n].values["frechet"], lcm[n].values["frechet"]) for n in EVALUATIONS]
    by_words = [verdict(lcm[n].values["retrieval"], tcd[n].values["retrieval"]) for n in EVALUATIONS]
    return [
        Claim(
            "section 5.2, table 1",
            "With 2 or 4 steps TCD is far ahead of the solvers",
            f"Frechet distance at equal evaluations: {tally(equal)}; with the paper's count: {tally(paper)}",
            all_of(equal + paper),
        ),
        Claim(
            "section 5.2, table 1",
            "TCD improves on LCM at every number of steps (2, 4, 8, 20)",
            f"Frechet distance of TCD {numbers(found, 'tcd', 'frechet')}; of LCM {numbers(found, 'lcm', 'frechet')}",
            all_of(by_lcm),
        ),
        Claim(
            "section 5.2, figure 3",
            "LCM gets worse when the steps grow from 4 to 20",
            f"Frechet distance {numbers(found, 'lcm', 'frechet', (4, 20))}",
            verdict(lcm[4].values["frechet"], lcm[20].values["frechet"]),
        ),
        Claim(
            "section 5.2, figure 3",
            "LCM loses detail when the steps grow from 4 to 20",
            f"energy of detail {numbers(found, 'lcm', 'complexity', (4, 20))}",
            verdict(lcm[20].values["complexity"], lcm[4].values["complexity"]),
        ),
        Claim(
            "section 5.2, table 1",
            "TCD gains detail when the steps grow from 4 to 20, and has more than LCM",
            f"energy of detail {numbers(found, 'tcd', 'complexity', (4, 20))}; LCM at 20 "
            f"{numbers(found, 'lcm', 'complexity', (20,))}",
            all_of(
                [
                    verdict(tcd[4].values["complexity"], tcd[20].values["complexity"]),
                    verdict(lcm[20].values["complexity"], tcd[20].values["complexity"]),
                ]
            ),
        ),
        Claim(
            "section 5.2, table 1",
            "TCD with 20 steps is better than its teacher, DDIM with 20 guided steps",
            f"Frechet distance {numbers(found, 'tcd', 'frechet', (20,))} against "
            f"{numbers(found, 'ddim', 'frechet', (40,))} (with {TEACHER.steps} steps {teacher.cell('frechet')})",
            verdict(tcd[20].values["frechet"], found["ddim"][40].values["frechet"]),
        ),
        Claim(
            "section 5.2, table 1",
            "TCD's pictures fit their texts better than LCM's at every number of steps",
            f"captions found by TCD {numbers(found, 'tcd', 'retrieval')}; by LCM {numbers(found, 'lcm', 'retrieval')}",
            all_of(by_words),
        ),
    ]


TEXT = """Every method draws the same captions from the same noise, {seeds} seeds of {captions}; the numbers are mean
and standard deviation over the seeds. TCD and LCM are LoRAs of the same rank, trained on the same data for the same
number of steps with the same guidance, skipping step and distance; they sample without guidance, TCD with gamma
{gamma:g}, LCM by multistep consistency sampling. The solvers are guided (w = {w:g}, a cfg of {cfg:g}), so that one of
their steps evaluates the network twice, and one of DPM++(2S) four times. The paper counts a guided step as one: its 2,
4, 8 and 20 are the columns 4, 8, 16 and 40 here. Where LCM is ahead of TCD, that comes of the ends that their losses
ask for ([log.md](log.md), *It is the ends*)."""


def run(lab: Lab) -> Section:
    found, teacher = results(lab), lab.bench().measure(TEACHER)
    seeds, captions = len(lab.scale.seeds), len(lab.bench().texts)
    gamma = lab.student("tcd").gamma
    text = TEXT.format(seeds=seeds, captions=captions, gamma=gamma, w=W, cfg=1 + W)
    compared = {
        f"the teacher, {TEACHER.steps} guided DDIM steps": teacher,
        "a real picture of each caption": lab.bench().measure_real(),
    }
    best = table(
        ["for comparison", *NAMES.values()],
        [[label, *(one.cell(measure) for measure in NAMES)] for label, one in compared.items()],
    )
    parts = [text, plots(lab, found), tables(found), best, sheets(lab)]
    return Section(TITLE, "\n\n".join(parts), claims(found, teacher))
