"""What the students' trainings differ in from demo/tcd.toml."""

from fnmatch import fnmatch

import pytest

from demo.reproduce import recipes, scale
from demo.reproduce.experiments import EXPERIMENTS
from demo.reproduce.experiments.direct import SWEEPS
from demo.reproduce.recipes import PAPER_W, SOLVER, TEACHERS, N, W, direct_name, first_paper, second_paper
from demo.reproduce.scale import SCALES
from demo.reproduce.trainings import BASE, ROOT, Training
from training import options

NAMES = list(recipes.recipes(SCALES["full"]))


@pytest.fixture(params=SCALES)
def budgets(request):
    return SCALES[request.param]


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Options of the trainer's own, as it makes them of the base recipe and what differs from it."""
    monkeypatch.chdir(ROOT)  # the base recipe's paths begin there

    def check(changes):
        values = options.from_toml(BASE) | {"train_data_dir": str(tmp_path)} | changes
        return options.check(options.Options(**values))

    return check


def test_every_student_is_one_that_the_trainer_can_train(budgets, checked):
    for changes in recipes.recipes(budgets).values():
        made = checked(changes)
        assert {name: getattr(made, name) for name in changes} == changes


@pytest.mark.parametrize("paper", [first_paper, second_paper])
def test_students_that_are_compared_see_as_many_samples_and_have_the_same_rank(budgets, paper, checked):
    made = [checked(changes) for changes in paper(budgets).values()]
    alike = ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "network_dim", "learning_rate")
    assert len({tuple(getattr(each, name) for name in alike) for each in made}) == 1


def test_budgets_are_those_of_the_scale_and_the_quick_ones_smaller(checked):
    full, quick = SCALES["full"], SCALES["quick"]
    assert {each["max_train_steps"] for each in first_paper(full).values()} == {full.steps}
    assert {each["max_train_steps"] for each in second_paper(full).values()} == {full.direct_steps}
    for name in scale.Scale.__annotations__:
        many, few = getattr(full, name), getattr(quick, name)
        assert (len(few) < len(many)) if name == "seeds" else few <= many


def test_tcd_and_lcm_have_the_same_teacher(budgets, checked):
    tcd, lcm = (checked(first_paper(budgets)[name]) for name in ("tcd", "lcm"))
    assert (tcd.method, tcd.tcf, lcm.method) == ("tcd", "1", "lcm")
    assert 1000 / lcm.intervals == tcd.skip_steps
    for name in ("solver", "guidance_min", "guidance_max", "loss_type", "seed", "mixed_precision"):
        assert getattr(tcd, name) == getattr(lcm, name)


def test_the_orders_differ_in_the_trajectory_function(budgets, checked):
    made = {name: checked(first_paper(budgets)[name]) for name in ("tcd", "tcf2", "splus")}
    assert {name: each.tcf for name, each in made.items()} == {"tcd": "1", "tcf2": "2", "splus": "s+"}
    assert {each.skip_steps for each in made.values()} == {20}


def test_cm_and_direct_cm_differ_in_the_loss_alone(budgets):
    students = second_paper(budgets)
    for teacher in TEACHERS:
        cm, direct = (students[direct_name(method, *teacher)] for method in ("cm", "direct_cm"))
        assert cm | {"method": "direct_cm"} == direct
        assert (cm["method"], cm["solver"], cm["intervals"]) == ("cm", *teacher[:2])
        assert cm["guidance_min"] == cm["guidance_max"] == teacher[2]


def test_the_teachers_are_those_of_the_second_paper():
    assert len(set(TEACHERS)) == len(TEACHERS)
    assert {solver for solver, *other in TEACHERS if other == [N, W]} == {"ddim", "euler", "heun"}
    assert {n for solver, n, w in TEACHERS if (solver, w) == (SOLVER, W)} == {25, 50, 100, 200}
    assert {PAPER_W[w] for solver, n, w in TEACHERS if (solver, n) == (SOLVER, N)} == {1, 4, 8, 11}
    assert all(paper == w + 1 for w, paper in PAPER_W.items())  # u + paper (c - u) is (1 + w) c - w u


def test_the_sweeps_are_over_the_teachers_and_over_all_of_them():
    found = [teacher for by in SWEEPS.values() for teacher in by]
    assert set(found) == set(TEACHERS)
    assert list(SWEEPS["intervals"].values()) == ["25", "50", "100", "200"]
    assert list(SWEEPS["guidance"].values()) == ["1", "4", "8", "11"]
    for sweep, varied in (("solver", 0), ("intervals", 1), ("guidance", 2)):
        rest = {tuple(part for i, part in enumerate(teacher) if i != varied) for teacher in SWEEPS[sweep]}
        assert len(rest) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_students_of_an_experiment_are_there(name):
    assert set(EXPERIMENTS[name].STUDENTS) <= set(NAMES)


def test_no_student_is_trained_for_nothing():
    assert set(NAMES) == {student for each in EXPERIMENTS.values() for student in each.STUDENTS}


def test_no_file_of_a_student_is_taken_for_anothers(tmp_path):
    """A training that begins anew removes its own files."""
    for name in NAMES:
        (own,) = {Training(name, {}, tmp_path, tmp_path).lora.name}
        for other in set(NAMES) - {name}:
            files = [f"{other}{ending}" for ending in (".safetensors", "-state.pt", "-step00000250.safetensors")]
            assert not any(fnmatch(file, f"{name}.*") or fnmatch(file, f"{name}-s*") for file in files)
        assert fnmatch(own, f"{name}.*")
