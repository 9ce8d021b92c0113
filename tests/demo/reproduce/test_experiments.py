"""The claims of the papers, on numbers that were made up: such as they say, the opposite, and seeds that differ."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo.reproduce.claims import AGREES, DIFFERS, OPEN
from demo.reproduce.experiments import EXPERIMENTS, direct, gamma, orders, table1
from demo.reproduce.lab import NAMES, Measured
from demo.reproduce.recipes import W
from training.evaluate.loras import LoraFile

# Of every seed: as the papers say, or the other way round; and what is then to be said of each claim.
SEEDS = [((1, 1, 1), AGREES), ((-1, -1, -1), DIFFERS), ((1, 1, -1), OPEN)]
seeds = pytest.mark.parametrize(("signs", "wanted"), SEEDS, ids=[wanted for _, wanted in SEEDS])


def measured(signs, **numbers):
    """Numbers by measure, for each seed with its sign, and a little apart from those of the other seeds."""
    values = {name: [sign * (number + i / 1000) for i, sign in enumerate(signs)] for name, number in numbers.items()}
    return Measured(4.0, dict.fromkeys(NAMES, [1.0] * len(signs)) | values)


def verdicts(claims):
    return [claim.verdict for claim in claims]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_what_the_program_needs(name):
    experiment = EXPERIMENTS[name]
    assert experiment.TITLE
    assert experiment.TITLE not in [other.TITLE for key, other in EXPERIMENTS.items() if key != name]
    assert len(set(experiment.STUDENTS)) == len(experiment.STUDENTS)
    assert callable(experiment.run)


# --- Table 1 ---------------------------------------------------------------------------------------------


def of_table1(signs):
    """(methods by evaluations, teacher) as the paper has them: TCD first, then LCM, then the solvers."""
    solver = {n: measured(signs, frechet=100 - n) for n in (2, 4, 8, 16, 20, 40)}
    found = {"euler": solver, "ddim": solver, "dpmpp_2s": {n: solver[n] for n in solver if n % 4 == 0}}
    found["lcm"] = {n: measured(signs, frechet=10 + n, retrieval=20, complexity=30 - n) for n in table1.EVALUATIONS}
    found["tcd"] = {n: measured(signs, frechet=5, retrieval=40, complexity=30 + n) for n in table1.EVALUATIONS}
    return found, measured(signs, frechet=3)


@seeds
def test_table_1_agrees_where_every_seed_does(signs, wanted):
    assert verdicts(table1.claims(*of_table1(signs))) == [wanted] * 7


def test_every_number_of_steps_counts_for_tcd_against_lcm():
    found, teacher = of_table1((1, 1))
    found["tcd"][8] = measured((1, 1), frechet=50, retrieval=40, complexity=38)
    assert verdicts(table1.claims(found, teacher)) == [AGREES, DIFFERS, *[AGREES] * 5]
    found["tcd"][8] = measured((1, 1), frechet=5, retrieval=10, complexity=38)
    assert verdicts(table1.claims(found, teacher)) == [*[AGREES] * 6, DIFFERS]


def test_every_solver_counts_with_as_many_evaluations_and_with_as_many_steps():
    found, teacher = of_table1((1, 1))
    claim = table1.claims(found, teacher)[0]
    assert "equal evaluations: 5 of 5 comparisons agree;" in claim.measured  # DPM++(2S) cannot be had for two
    assert claim.measured.endswith("the paper's count: 6 of 6 comparisons agree")
    found["ddim"] = found["ddim"] | {8: measured((1, 1), frechet=1)}
    claim = table1.claims(found, teacher)[0]
    assert claim.measured.endswith("the paper's count: 5 of 6 comparisons agree, 1 does not")
    assert claim.verdict == DIFFERS


@pytest.fixture
def lab():
    """Has students that are only names."""

    def student(name):
        return LoraFile(name, Path(name), 1.0 if name == "lcm" else 0.3, "2" if name == "tcf2" else "1")

    made: Any = SimpleNamespace(student=student)
    return made


def test_rows_stand_under_their_evaluations_of_the_network(lab):
    each = {"euler": 2, "ddim": 2, "dpmpp_2s": 4, "lcm": 1, "tcd": 1}  # of a step, the first three are guided
    for method, evaluations in each.items():
        rows = table1.rows(lab, method)
        assert all(row.steps * evaluations == n for n, row in rows.items())
        assert {row.w for row in rows.values()} == {W if evaluations > 1 else 0}
        wanted = {n for n in (2, 4, 8, 16, 20, 40) if n % evaluations == 0}
        assert set(rows) == (wanted if evaluations > 1 else set(table1.EVALUATIONS))


def test_the_table_has_a_gap_where_a_method_cannot_be_had():
    found, _ = of_table1((1, 1))
    first = table1.tables(found).split("\n\n")[1].splitlines()
    assert first[0] == "| method | 2 | 4 | 8 | 16 | 20 | 40 |"
    by = {line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[1:] for line in first[2:]}
    assert [cell == "-" for cell in by["DPM++(2S)"]] == [True, False, False, False, False, False]
    assert [cell == "-" for cell in by["TCD"]] == [False, False, False, True, False, True]
    assert by["Euler"][0] == found["euler"][2].cell("frechet")


# --- Gamma -----------------------------------------------------------------------------------------------


def of_gamma(best, rises=1) -> gamma.Sweep:
    """The Frechet distance is smallest at `best`, complexity rises or falls with gamma."""
    by = {g: measured((1, 1), frechet=1 + abs(g - best), complexity=rises * g) for g in gamma.GAMMAS}
    return dict.fromkeys(gamma.STEPS, by)


def test_some_noise_is_best_and_more_of_it_is_more_complex():
    assert verdicts(gamma.claims(of_gamma(0.4))) == [AGREES] * 6


def test_less_complexity_with_gamma_does_not_agree():
    assert verdicts(gamma.claims(of_gamma(0.4, rises=-1))) == [DIFFERS, AGREES, AGREES] * 2


@pytest.mark.parametrize(("best", "wanted"), [(0.0, [DIFFERS, AGREES]), (1.0, [AGREES, DIFFERS])])
def test_where_the_best_gamma_is_at_an_end_that_claim_does_not_agree(best, wanted):
    found = gamma.claims(of_gamma(best))
    assert verdicts(found) == [AGREES, *wanted] * 2
    assert f"best at gamma {best:g}" in found[1].measured


def test_gammas_whose_seeds_differ_leave_it_open():
    by = dict.fromkeys(gamma.GAMMAS, Measured(4.0, {"frechet": [5.0, 5.0], "complexity": [1.0, 1.0]}))
    by[0.3] = Measured(4.0, {"frechet": [1.0, 6.0], "complexity": [1.0, 1.0]})  # the best in the mean
    by[0.5] = Measured(4.0, {"frechet": [5.0, 5.0], "complexity": [0.5, 1.5]})
    found: gamma.Sweep = dict.fromkeys(gamma.STEPS, by)
    assert verdicts(gamma.claims(found)) == [OPEN] * 6


# --- Orders ----------------------------------------------------------------------------------------------


def of_orders(signs):
    worse = {n: measured(signs, frechet=9, complexity=2, retrieval=2) for n in orders.EVALUATIONS}
    better = {n: measured(signs, frechet=3, complexity=5, retrieval=5) for n in orders.EVALUATIONS}
    return {"tcd": better, "tcf2": worse, "splus": worse}


@seeds
def test_the_first_order_is_ahead_where_every_seed_says_so(signs, wanted):
    assert verdicts(orders.claims(of_orders(signs))) == [wanted] * 6


def test_each_order_has_claims_of_its_own():
    found = of_orders((1, 1))
    found["splus"] = found["tcd"]
    assert verdicts(orders.claims(found)) == [AGREES] * 3 + [OPEN] * 3


def test_all_orders_have_as_many_evaluations(lab):
    lab.bench = lambda: SimpleNamespace(measure=lambda row: row)
    found: Any = orders.results(lab)
    for name, each in (("tcd", 1), ("tcf2", 2), ("splus", 1)):
        assert {n: row.steps * each for n, row in found[name].items()} == {n: n for n in orders.EVALUATIONS}
        assert {row.lora.name for row in found[name].values()} == {name}
    assert {row.tcf for row in found["tcf2"].values()} == {"2"}


# --- The second paper ------------------------------------------------------------------------------------


def student(signs, error, distance):
    by = {n: measured(signs, frechet=distance) for n in direct.STEPS}
    return direct.Student([sign * (error + i / 1000) for i, sign in enumerate(signs)], by, by)


def of_direct(signs):
    """Direct CM solves the ODE better, and makes worse pictures."""
    return {
        teacher: {"cm": student(signs, 2.0, 1.0), "direct_cm": student(signs, 1.0, 3.0)} for teacher in direct.TEACHERS
    }


@seeds
def test_direct_cm_solves_better_and_looks_worse_where_every_seed_says_so(signs, wanted):
    assert verdicts(direct.claims(of_direct(signs))) == [wanted] * 8


def test_every_teacher_of_a_sweep_counts():
    found = of_direct((1, 1))
    found["heun", direct.N, direct.W] = {"cm": student((1, 1), 1.0, 1.0), "direct_cm": student((1, 1), 2.0, 3.0)}
    first, *others = direct.claims(found)
    assert first.verdict == DIFFERS
    assert first.measured == "2 of 3 comparisons agree, 1 does not"
    assert verdicts(others) == [AGREES] * 7


def test_pictures_must_be_worse_against_the_teachers_and_against_real_ones():
    found = of_direct((1, 1))
    for pair in found.values():
        better = student((1, 1), 1.0, 0.5)
        pair["direct_cm"] = direct.Student(better.ode_error, better.real, pair["direct_cm"].teacher)
    assert verdicts(direct.claims(found)) == [AGREES, DIFFERS] * 3 + [AGREES] * 2


def test_the_tables_of_the_second_paper_have_a_line_for_each_teacher_and_loss():
    found = of_direct((1, 1))
    lines = direct.solver_table(found).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        f"| {solver}, {loss}" for solver in ("DDIM", "Euler", "Heun") for loss in ("CM", "Direct CM")
    ]
    assert len({line.count(" | ") for line in lines}) == 1
    for sweep in ("intervals", "guidance"):
        assert len(direct.sweep_table(found, sweep, sweep).splitlines()) == 2 + 2 * 4


def test_every_experiment_has_charts_of_its_own(tmp_path, lab):
    lab.images = tmp_path
    assert table1.plots(lab, of_table1((1, 1))[0]) == "![table1](images/results_table1.png)"
    assert direct.plots(lab, of_direct((1, 1)), "intervals", "N") == (
        "![direct intervals](images/results_direct_intervals.png)"
    )
    assert gamma.plots(lab, of_gamma(0.4)) == "![gamma](images/results_gamma.png)"
    assert orders.plots(lab, of_orders((1, 1))) == "![orders](images/results_orders.png)"
    assert len(list(tmp_path.iterdir())) == 4
