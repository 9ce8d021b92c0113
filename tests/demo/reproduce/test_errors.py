"""Errors of one step: on data of which everything is known, remembered, and what they say of the paper's claims."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from oracle import Gaussian, self_consistent
from torch import Tensor, nn

import tcd
from demo.reproduce import step_errors
from demo.reproduce.claims import AGREES, DIFFERS, OPEN
from demo.reproduce.experiments import errors
from demo.reproduce.experiments.errors import LABELS
from demo.reproduce.lab import TINY, Base, Bench, Lab
from demo.reproduce.scale import SCALES
from demo.reproduce.step_errors import FROM, SPACINGS, STARTS, STUDENTS, WIDTHS, Found
from training.evaluate.loras import LoraFile
from training.evaluate.prompts import Prompt

SD = tcd.DiscreteVP.scaled_linear()
DATA = Gaussian(SD, *torch.tensor([[0.4, -1.0], [0.7, 0.2]], dtype=torch.float64))
TCF_OF = {"tcd": "1", "lcm": "1", "tcf2": "2", "splus": "s+"}


@dataclass
class GaussianLab(Lab):
    """A lab whose teacher and students know the Gaussian, and note what they are asked."""

    asked: list[tuple[int, torch.dtype, torch.dtype]] = field(default_factory=list)  # samples, dtypes of x and network

    def student(self, name: str, alias: str = "") -> LoraFile:
        return LoraFile(alias or name, self.folder / f"{name}.safetensors", 0.3, TCF_OF[name])

    def bench(self, base: Base = TINY) -> Bench:
        assert base.precision == "no"
        scenes = SimpleNamespace(
            of=lambda prompts: ([p.text for p in prompts], "", [p.index for p in prompts]),
            noise=lambda prompts: DATA.draw(SD.last, (len(prompts), 2), seed=prompts[0].seed).float(),
        )
        prompts = [[Prompt(i, f"caption {i}", 10 * seed + i) for i in range(6)] for seed in self.scale.seeds]
        parts = {"base": base, "scenes": scenes, "seeds": prompts, "texts": [""] * 6, "parts": self.parts}
        return cast(Bench, SimpleNamespace(**parts, models=SimpleNamespace(sched=SD)))

    @contextmanager
    def parts(self, lora: LoraFile | None) -> Iterator[Any]:
        net = SimpleNamespace(unet=nn.Linear(1, 1))

        def told(conds: list[str]) -> tcd.Predict:
            def predict(x: Tensor, t: tcd.Time, s: tcd.Time) -> Tensor:
                assert len(conds) == len(x)
                self.asked.append((len(x), x.dtype, net.unet.weight.dtype))
                return DATA.student(x, t, s) if lora and lora.tcf == "s+" else DATA.x0(x, t)

            return predict

        yield SimpleNamespace(
            sched=SD,
            net=net,
            teacher=lambda conds, uncond, sizes, w: told(conds),
            student=lambda conds, sizes: told(conds),
        )


@pytest.fixture
def lab(tmp_path: Path) -> GaussianLab:
    for name in STUDENTS:
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    scale = replace(SCALES["quick"], seeds=(0, 1), probes=5, fine=100)
    return GaussianLab(scale, tmp_path, tmp_path, tmp_path / "docs" / "results.md")


def exact_states(times: list[float]) -> dict[float, Tensor]:
    """The exact path of three samples."""
    x = DATA.draw(SD.last, (3, 2))
    return {t: DATA.path(x, SD.last, t) for t in times}


def test_slopes_of_short_steps_are_those_of_eq_23():
    found = step_errors.short(DATA.x0, SD, exact_states([*map(float, FROM)]))
    for t in FROM:
        assert errors.slopes([found], "1", t) == pytest.approx([2], abs=0.02)
        assert errors.slopes([found], "2", t) == pytest.approx([3], abs=0.1)


def test_the_whole_path_is_looked_at_wherever_a_step_begins_or_ends():
    times = step_errors.stops(SD)
    assert times == sorted(set(times), reverse=True)
    assert {*STARTS, *step_errors.long_ends(SD), *(end for t in STARTS for end in step_errors.spaced_ends(t))} <= {
        *times
    }
    assert (times[0], times[-1]) == (SD.last, SD.clean)


def test_the_whole_path_is_near_the_exact_one_and_the_nearer_the_finer():
    times = step_errors.stops(SD)
    exact, far = exact_states(times), []
    for fine in (50, 200):
        steps = step_errors.steps_between(SD, fine)
        assert all((t - s) / n <= 4000 / fine for (t, s), n in zip(pairwise(times), steps, strict=True))
        made = step_errors.path(DATA.x0, SD, exact[SD.last], times, steps)
        far.append({t: tcd.metrics.ode_error(made[t], exact[t]) for t in times})
    assert all(far[1][t] < max(far[0][t] / 4, 1e-6) for t in times if t >= 49)
    assert max(far[1][t] for t in times if t >= 49) < 5e-4
    assert far[1][SD.clean] < 4e-3


def test_the_same_error_of_the_prediction_is_more_of_an_error_the_longer_the_step():
    right = self_consistent(SD)
    x, t, ends = DATA.draw(749, (3, 2)), 749.0, step_errors.spaced_ends(749)
    states = {t: x, **{s: tcd.tcf.transfer(SD, x, right(x, t), t, s) for s in ends}}
    assert step_errors.errors(right, SD, "1", states, t, ends) == pytest.approx([0] * len(ends), abs=1e-12)
    found = step_errors.errors(lambda x, t, s: right(x, t, s) + 0.1, SD, "1", states, t, ends)
    (alpha_t, sigma_t), levels = SD.levels(t), [SD.levels(s) for s in ends]
    assert found == pytest.approx([0.1 * (alpha - alpha_t * sigma / sigma_t) for alpha, sigma in levels])
    assert found == sorted(found)


def test_a_student_that_knows_the_end_is_told_of_every_end():
    times = step_errors.stops(SD)
    found = step_errors.spaced(DATA.student, SD, "s+", exact_states(times))
    assert max(max(curve) for curve in found.values()) < 1e-12
    assert min(min(curve) for curve in step_errors.spaced(DATA.x0, SD, "1", exact_states(times)).values()) > 1e-5


@pytest.mark.parametrize(("tcf", "evaluations"), [("1", 1), ("2", 1 + 5), ("s+", 5)])
def test_where_steps_begin_is_evaluated_once_for_all_ends_that_it_does_not_depend_on(tcf, evaluations):
    asked, ends = [], step_errors.spaced_ends(249)

    def counted(x: Tensor, t: tcd.Time, s: tcd.Time) -> Tensor:
        asked.append(float(t))
        return DATA.x0(x, t)

    states = exact_states([249.0, *ends])
    known = step_errors.errors(counted, SD, tcf, states, 249.0, ends)
    assert len(asked) == evaluations
    each = [tcd.TCF[tcf](DATA.x0, SD, states[249.0], 249.0, end) for end in ends]
    assert known == pytest.approx([tcd.metrics.ode_error(x, states[end]) for x, end in zip(each, ends, strict=True)])


def test_numbers_are_those_of_the_gaussian_for_every_seed(lab):
    found = step_errors.results(lab)
    assert len(found) == 2
    assert found[0] != found[1]
    for one in found:
        assert one.keys() == {"short 1", "short 2", "long 1", "long 2", *LABELS}
        assert one["teacher"] == one["tcd"] == one["lcm"]  # they know the same, and step by TCF(1)
        assert max(one["splus"]["999"]) < 0.01 < one["tcd"]["999"][-1]
        assert one["long 1"]["999"][-1] == one["teacher"]["999"][-1]
        assert one["tcf2"]["999"][-1] == one["long 2"]["999"][-1]


def test_short_steps_are_in_double_precision_for_fewer_captions(lab):
    step_errors.results(lab)
    single, double = torch.float32, torch.float64
    assert {*lab.asked} == {(5, single, single), (2, double, double)}


def test_the_second_time_nothing_is_evaluated(lab):
    first = step_errors.results(lab)
    lab.asked.clear()
    assert step_errors.results(lab) == first
    assert lab.asked == []


def test_another_lora_or_scale_is_measured_anew(lab):
    step_errors.results(lab)
    for change in ("lora", "scale"):
        lab.asked.clear()
        if change == "lora":
            lab.student("splus").path.write_bytes(b"trained for longer")
        else:
            lab.scale = replace(lab.scale, probes=4)
        step_errors.results(lab)
        assert lab.asked


def test_the_section_has_both_plots_and_the_theory_holds(lab):
    section = errors.run(lab)
    assert [claim.verdict for claim in section.claims[:4]] == [AGREES] * 4  # the exact problem keeps to the theory
    for name in ("order", "spacing"):
        assert f"images/results_errors_{name}.png" in section.text
        assert (lab.images / f"results_errors_{name}.png").is_file()
    assert "2\ncaptions for each of 2 seeds" in section.text


def made_up(power: dict[str, float], rising: bool = True) -> Found:
    """Errors that are powers of h, and of the spacing, or of one over it."""
    found = {f"short {tcf}": {str(t): [(h / 2) ** p for h in WIDTHS] for t in FROM} for tcf, p in power.items()}
    by_spacing = {str(t): [float(d) if rising else 1 / d for d in step_errors.spacings(t)] for t in STARTS}
    return found | dict.fromkeys(LABELS, by_spacing)


THEORY = made_up({"1": 2.0, "2": 3.0})


def test_spacings_have_room_and_end_at_clean_data():
    assert [step_errors.spacings(t)[-1] for t in STARTS] == [1000, 750, 500, 250]
    assert step_errors.spacings(999) == [*SPACINGS]
    assert step_errors.spaced_ends(249) == [199, 149, 99, 49, -1]


@pytest.mark.parametrize(
    ("seeds", "wanted"),
    [
        ([THEORY, made_up({"1": 2.29, "2": 2.71})], [AGREES, AGREES]),
        ([THEORY, made_up({"1": 2.31, "2": 2.69})], [OPEN, OPEN]),
        ([made_up({"1": 1.0, "2": 2.0}), made_up({"1": 1.5, "2": 3.0})], [DIFFERS, OPEN]),
    ],
)
def test_an_order_agrees_where_the_slope_of_every_seed_is_near_it(seeds, wanted):
    assert [claim.verdict for claim in errors.order_claims(seeds)] == wanted


def test_the_slope_is_that_of_the_smallest_h():
    bent = made_up({"1": 2.0, "2": 3.0})
    bent["short 1"] = {t: [*curve[:3], *[1.0] * len(curve[3:])] for t, curve in bent["short 1"].items()}
    assert errors.slopes([bent], "1", 749) == pytest.approx([2.0])
    assert errors.slopes([bent], "1", 749, slice(-2, None)) == pytest.approx([0.0])


def test_one_time_that_has_another_order_is_enough_to_differ():
    other = made_up({"1": 2.0, "2": 3.0})
    other["short 2"]["249"] = [h**2 for h in WIDTHS]
    assert [claim.verdict for claim in errors.order_claims([other, other])] == [AGREES, DIFFERS]


@pytest.mark.parametrize(
    ("seeds", "wanted"),
    [
        ([THEORY, THEORY], [AGREES, AGREES]),
        ([made_up({"1": 3.0, "2": 2.0})] * 2, [AGREES, DIFFERS]),
        ([made_up({"1": -2.0, "2": 3.0})] * 2, [DIFFERS, AGREES]),
        ([THEORY, made_up({"1": 3.0, "2": 2.0})], [AGREES, OPEN]),
    ],
)
def test_shorter_steps_and_higher_orders_are_compared_at_every_h(seeds, wanted):
    assert [claim.verdict for claim in errors.width_claims(seeds)] == wanted


@pytest.mark.parametrize(
    ("rising", "wanted", "rank"),
    [((True, True), AGREES, "1 +- 0"), ((False, False), DIFFERS, "-1 +- 0"), ((True, False), OPEN, "0 +- 1.41")],
)
def test_the_error_at_a_short_spacing_is_compared_with_that_to_the_origin(rising, wanted, rank):
    found = [made_up({"1": 2.0, "2": 3.0}, way) for way in rising]
    claims = errors.spacing_claims(found)
    assert [claim.verdict for claim in claims] == [wanted, wanted]
    assert f"spacing {rank} (t_n = 999), {rank} (t_n = 749)" in claims[0].measured


def test_steps_on_the_way_are_compared_with_lcm_s_to_the_origin():
    other = made_up({"1": 2.0, "2": 3.0})
    other["lcm"] = {t: [1e-3] * len(curve) for t, curve in other["lcm"].items()}
    assert [claim.verdict for claim in errors.spacing_claims([other])] == [AGREES, DIFFERS]


def test_it_pays_from_the_first_spacing_beyond_which_tcd_is_always_nearer():
    found = made_up({"1": 2.0, "2": 3.0})
    own = [30.0, 101.0, 149.0, 201.0, 1000.0]
    found["teacher"] = {**found["teacher"], "249": own, "499": [1e3] * 8}
    assert errors.pays_from([found], 249) == "200 (t_n = 249)"
    assert errors.pays_from([found], 499) == "50 (t_n = 499)"
    assert errors.pays_from([found], 999) == "none (t_n = 999)"
