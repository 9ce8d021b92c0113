"""Tables 1 and 3, figures 3 and 4 of the second paper: does solving the ODE better make better samples?"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from training.evaluate.probes import Path, Probe, paths_of
from training.evaluate.report import cell, mean_and_spread
from training.evaluate.rows import Row
from training.watch.sheet import counted

from ..charts import Line, Panel, chart
from ..claims import Claim, all_of, tally, verdict
from ..lab import SINGLE, Lab, Measured
from ..memory import content, remembered
from ..page import Section, table
from ..recipes import PAPER_W, SOLVER, TEACHERS, N, W, direct_name

TITLE = "Second paper: CM and Direct CM"
METHODS = {"cm": "CM", "direct_cm": "Direct CM"}
STUDENTS = tuple(direct_name(method, *teacher) for method in METHODS for teacher in TEACHERS)
STEPS = (1, 2, 4)
SOLVERS = {"ddim": "DDIM", "euler": "Euler", "heun": "Heun"}
REFERENCE = 50  # DDIM steps of the teacher whose pictures they are compared with

Teacher = tuple[str, int, float]  # solver, N, w


@dataclass(frozen=True)
class Student:
    """One student's numbers: the ODE-solving error, and by steps its pictures against real ones and the teacher's."""

    ode_error: list[float]  # of each seed
    real: dict[int, Measured]
    teacher: dict[int, Measured]


def row(lab: Lab, method: str, teacher: Teacher, steps: int) -> Row:
    """Multistep consistency sampling, without guidance."""
    return Row(method, steps, 0.0, 1.0, "1", lab.student(direct_name(method, *teacher)))


def paths(lab: Lab, teacher: Teacher) -> Iterator[list[Path]]:
    """The teacher's own way from noise to clean data, for each seed: what eq. 6 compares with."""
    bench, (solver, intervals, w) = lab.bench(SINGLE), teacher
    how = {"teacher_solver": solver, "teacher_steps": intervals, "teacher_guidance": w}
    opts = replace(bench.opts, **how, probe_prompts=lab.scale.probes)
    with bench.parts(None) as parts:
        for prompts in bench.seeds:
            yield paths_of(parts, bench.scenes, prompts, opts)


def ode_errors(lab: Lab, teacher: Teacher, rows: dict[str, Row]) -> dict[str, list[float]]:
    """E of each row, one value for each seed."""
    bench, files = lab.bench(SINGLE), [content(one.lora.path) for one in rows.values() if one.lora]

    def measured() -> dict[str, list[float]]:
        found = {name: list[float]() for name in rows}
        for ways in paths(lab, teacher):
            for name, one in rows.items():
                with bench.parts(one.lora) as parts:
                    found[name].append(Probe(one, parts, bench.scenes, ways).ode_error())
        return found

    follows_from = (teacher, files, lab.scale.probes, bench.texts, lab.scale.seeds)
    return remembered(lab.folder / "ode_errors", "-".join(map(str, teacher)), follows_from, measured)


def result(lab: Lab, teacher: Teacher) -> dict[str, Student]:
    """Both students of one teacher."""
    bench, rows = lab.bench(SINGLE), {method: {n: row(lab, method, teacher, n) for n in STEPS} for method in METHODS}
    errors = ode_errors(lab, teacher, {method: by[1] for method, by in rows.items()})
    compared = bench.pictures(Row(SOLVER, REFERENCE, teacher[2]), bench.seeds[0])
    return {
        method: Student(
            errors[method],
            {n: bench.measure(one) for n, one in by.items()},
            {n: bench.measure(one, among=compared) for n, one in by.items()},
        )
        for method, by in rows.items()
    }


# What is varied -> the teachers that differ in it, and the label of each.
SWEEPS: dict[str, dict[Teacher, str]] = {
    "solver": {(solver, N, W): label for solver, label in SOLVERS.items()},
    "intervals": {teacher: str(teacher[1]) for teacher in sorted(TEACHERS) if teacher[0] == SOLVER and teacher[2] == W},
    "guidance": {(SOLVER, N, w): str(paper) for w, paper in PAPER_W.items()},
}

Results = dict[Teacher, dict[str, Student]]


def solver_table(found: Results) -> str:
    """Tables 1 and 3: every solver, method and number of steps."""
    lines = []
    for teacher, label in SWEEPS["solver"].items():
        for method, name in METHODS.items():
            one = found[teacher][method]
            quality = [by[n].cell("frechet") for by in (one.teacher, one.real) for n in STEPS]
            words = [one.real[n].cell("retrieval") for n in STEPS]
            lines.append([f"{label}, {name}", cell(one.ode_error), *quality, *words])
    heading = [
        *(f"to the teacher's, {counted(n)}" for n in STEPS),
        *(f"to real ones, {counted(n)}" for n in STEPS),
        *(f"captions found, {counted(n)}" for n in STEPS),
    ]
    return table(["solver and loss", "E", *heading], lines)


def sweep_table(found: Results, sweep: str, what: str) -> str:
    """The numbers of one step, by what is varied."""
    lines = [
        [f"{label}, {name}", cell(one.ode_error), one.teacher[1].cell("frechet"), one.real[1].cell("frechet")]
        for teacher, label in SWEEPS[sweep].items()
        for method, name in METHODS.items()
        for one in [found[teacher][method]]
    ]
    return table([f"{what} and loss", "E", "Frechet to the teacher's", "Frechet to real ones"], lines)


def plots(lab: Lab, found: Results, sweep: str, xlabel: str) -> str:
    """Figure 3 or 4: E and the Frechet distance of one step."""
    teachers = SWEEPS[sweep]
    x = [float(label) for label in teachers.values()]

    def panel(ylabel: str, numbers: Callable[[Student], list[float]]) -> Panel:
        lines = []
        for method, name in METHODS.items():
            pairs = [mean_and_spread(numbers(found[teacher][method])) for teacher in teachers]
            lines.append(Line(name, x, [mean for mean, _ in pairs], [spread or 0.0 for _, spread in pairs]))
        return Panel(xlabel, ylabel, lines, ticks=x)

    panels = [
        panel("ODE-solving error E", lambda one: one.ode_error),
        panel("Frechet distance to the teacher's", lambda one: one.teacher[1].values["frechet"]),
        panel("Frechet distance to real pictures", lambda one: one.real[1].values["frechet"]),
    ]
    return chart(lab.images, f"direct_{sweep}", panels)


def solves_better(found: Results, teachers: Iterable[Teacher]) -> list[str]:
    """Whether E of Direct CM is the smaller one, for each of the teachers."""
    pairs = [found[teacher] for teacher in teachers]
    return [verdict(pair["direct_cm"].ode_error, pair["cm"].ode_error) for pair in pairs]


def looks_worse(found: Results, teachers: Iterable[Teacher], steps: int, against: str) -> list[str]:
    """Whether the Frechet distance of CM is the smaller one, for each of the teachers."""
    pairs = [{name: getattr(one, against)[steps] for name, one in found[teacher].items()} for teacher in teachers]
    return [verdict(pair["cm"].values["frechet"], pair["direct_cm"].values["frechet"]) for pair in pairs]


def claims(found: Results) -> list[Claim]:
    made = []
    for sweep, source in (("solver", "table 1"), ("intervals", "figure 3"), ("guidance", "figure 4")):
        teachers = list(SWEEPS[sweep])
        better = solves_better(found, teachers)
        where = f"second paper, {source}"
        varied = f"whatever the {'number of intervals' if sweep == 'intervals' else sweep}"
        made.append(
            Claim(
                where, f"In one step Direct CM solves the ODE better than CM, {varied}", tally(better), all_of(better)
            )
        )
        worse = [looks_worse(found, teachers, 1, against) for against in ("teacher", "real")]
        words = f"to the teacher's pictures {tally(worse[0])}; to real ones {tally(worse[1])}"
        made.append(Claim(where, f"And its pictures are worse, {varied}", words, all_of(worse[0] + worse[1])))
    for steps in STEPS[1:]:
        worse = looks_worse(found, SWEEPS["solver"], steps, "teacher")
        where, words = "second paper, table 3", f"Frechet distance to the teacher's: {tally(worse)}"
        made.append(Claim(where, f"Direct CM's pictures are worse with {counted(steps)} too", words, all_of(worse)))
    return made


TEXT = """Two losses, CM (eq. 4) and Direct CM (eq. 5), and all else alike: a LoRA of the same rank, {steps} steps of
{batch} samples, pseudo-Huber distance, fixed guidance, single precision. Where they do not vary, the teacher's solver
is DDIM, with N = {n} intervals, and the guidance is {guidance} as the paper counts it (u + guidance (c - u), as a cfg).
E is eq. 6: the distance, root mean square over a latent's numbers, of one step from noise to clean data from where the
teacher's solver comes to in N steps, for {probes} captions and each of {seeds} seeds. Pictures are by multistep
consistency sampling (gamma 1); their Frechet distance is taken to {captions} pictures of the teacher with the same
guidance (DDIM, {reference} steps), as in the paper, and to the real ones.

Table 1's students had {share:.0f} times as much training: here an update of Direct CM takes the teacher's whole path.
Before the first step E is {before}, with DDIM, N = {n} and guidance {guidance}. So these are students at the
beginning of their training: the numbers say which way each loss pulls, not where it ends."""


def run(lab: Lab) -> Section:
    found = {teacher: result(lab, teacher) for teacher in TEACHERS}
    scale, base = lab.scale, (SOLVER, N, W)
    untrained = {"none": replace(row(lab, "cm", base, 1), lora=None)}
    text = TEXT.format(
        share=scale.steps * scale.batch / (scale.direct_steps * scale.direct_batch),
        before=cell(ode_errors(lab, base, untrained)["none"]),
        steps=scale.direct_steps,
        batch=scale.direct_batch,
        n=N,
        guidance=PAPER_W[W],
        probes=scale.probes,
        seeds=len(scale.seeds),
        captions=len(lab.bench(SINGLE).texts),
        reference=REFERENCE,
    )
    rows = {f"{name}, {counted(n)}": row(lab, method, base, n) for n in STEPS for method, name in METHODS.items()}
    parts = [
        text,
        "### Tables 1 and 3: the teacher's solver (Frechet distances, lower is better)",
        solver_table(found),
        lab.sheet("direct_sheet", {f"teacher, {REFERENCE} steps": Row(SOLVER, REFERENCE, W), **rows}, SINGLE),
        "### Figure 3: the number of intervals N",
        plots(lab, found, "intervals", "N"),
        sweep_table(found, "intervals", "N"),
        "### Figure 4: the teacher's guidance",
        plots(lab, found, "guidance", "guidance, as the paper counts it"),
        sweep_table(found, "guidance", "guidance"),
    ]
    return Section(TITLE, "\n\n".join(parts), claims(found))
