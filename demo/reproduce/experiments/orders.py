"""Table 2 of the first paper: TCF(1), TCF(2) and TCF(S+)."""

from ..charts import chart, panels
from ..claims import Claim, verdict
from ..lab import NAMES, Lab, Measured, student_row
from ..page import Section, table

TITLE = "Table 2: TCF(1), TCF(2) and TCF(S+)"
LABELS = {"tcd": "TCF(1)", "tcf2": "TCF(2)", "splus": "TCF(S+)"}
STUDENTS = tuple(LABELS)
EVALUATIONS = (2, 4, 8, 20)
OF_A_STEP = {"tcd": 1, "tcf2": 2, "splus": 1}

By = dict[int, Measured]


def results(lab: Lab) -> dict[str, By]:
    """By student and evaluations; TCF(2) has a look at the middle of each step."""
    bench = lab.bench()
    return {
        name: {n: bench.measure(student_row(lab.student(name), n // OF_A_STEP[name])) for n in EVALUATIONS}
        for name in STUDENTS
    }


def plots(lab: Lab, found: dict[str, By]) -> str:
    return chart(lab.images, "orders", panels("evaluations", {LABELS[n]: by for n, by in found.items()}, EVALUATIONS))


def claims(found: dict[str, By]) -> list[Claim]:
    one = found["tcd"][4]
    made = []
    for name, reason in (("tcf2", "high orders are unstable"), ("splus", "its added parameters converge slowly")):
        other = found[name][4]
        made.append(
            Claim(
                "section 5.3, table 2",
                f"{LABELS[name]} is behind TCF(1) in quality at 4 evaluations: {reason}",
                f"Frechet distance {other.cell('frechet')} against {one.cell('frechet')}",
                verdict(one.values["frechet"], other.values["frechet"]),
            )
        )
        made.append(
            Claim(
                "section 5.3, table 2",
                f"{LABELS[name]} has less visual complexity than TCF(1) at 4 evaluations",
                f"energy of detail {other.cell('complexity')} against {one.cell('complexity')}",
                verdict(other.values["complexity"], one.values["complexity"]),
            )
        )
        made.append(
            Claim(
                "section 5.3, table 2",
                f"{LABELS[name]} fits the text less well than TCF(1) at 4 evaluations",
                f"captions found {other.cell('retrieval')} against {one.cell('retrieval')}",
                verdict(other.values["retrieval"], one.values["retrieval"]),
            )
        )
    return made


def run(lab: Lab) -> Section:
    found = results(lab)
    text = (
        f"Three LoRAs of the same rank, each trained for {lab.scale.steps:,} steps of {lab.scale.batch} samples on the "
        "same data, and sampled with equal evaluations of the network: TCF(2) makes half as many steps. The loss of "
        "TCF(1) is averaged over all ends m in closed form, which costs nothing; that of the others, whose network "
        "depends on the end, over one. TCF(S+) is distilled as a LoRA too, with the embedding of s; the paper trains "
        "all weights, for 14 times as many steps."
    )
    lines = [
        [LABELS[name], str(n), *(one.cell(measure) for measure in NAMES)]
        for name, by in found.items()
        for n, one in by.items()
    ]
    heading = ["function", "evaluations", *NAMES.values()]
    rows = {
        f"{LABELS[name]}, {n} evaluations": student_row(lab.student(name), n // OF_A_STEP[name])
        for n in (4, 20)
        for name in STUDENTS
    }
    parts = [text, plots(lab, found), table(heading, lines), lab.sheet("orders_sheet", rows)]
    return Section(TITLE, "\n\n".join(parts), claims(found))
