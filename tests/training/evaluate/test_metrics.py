"""The columns: what is measured, against what, and what is said where something is missing."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import oracle
import pytest
import torch
from PIL import Image
from torch import nn

import tcd
from training.evaluate import METRICS, EvaluateOptions, metrics, report
from training.evaluate.metrics import Subject, Tools
from training.evaluate.pictures import Pictures
from training.evaluate.probes import Probe, paths_of
from training.evaluate.prompts import prompts_of
from training.evaluate.report import Result
from training.evaluate.rows import Row

SCHED = tcd.DiscreteVP.scaled_linear()
DATA = oracle.Gaussian(SCHED)
ROW = Row("tcd", 4, 0.0, 0.3, "1")
OPTS = EvaluateOptions(teacher_solver="heun", teacher_steps=100, probe_prompts=3, batch_size=2, seeds=(0,))


class Parts:
    """Networks that are known exactly: `student` is any prediction, the teacher that of Gaussian data."""

    def __init__(self, predict):
        self.predict, self.sched, self.net, self.told = predict, SCHED, SimpleNamespace(unet=nn.Linear(1, 1)), []

    def student(self, conds, sizes):
        return self.predict

    def teacher(self, conds, uncond, sizes, w):
        self.told.append((len(conds), w))
        return DATA.x0


class Scenes:
    def of(self, prompts):
        return [None] * len(prompts), None, [None] * len(prompts)

    def noise(self, prompts):
        return torch.cat([torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(p.seed)) for p in prompts])


def probed(predict, opts=OPTS, row=ROW):
    parts = Parts(predict)
    return Probe(row, parts, Scenes(), paths_of(parts, Scenes(), prompts_of(["a"] * 5, 0, 0), opts))  # pyright: ignore


def clean(x, t, s=None):
    """Where the exact path through x_t ends."""
    return DATA.path(x, t, torch.tensor(SCHED.clean))


PERFECT = {"ode_error": clean, "self_consistency": clean, "drift": oracle.self_consistent(SCHED)}


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_student_has_no_error_and_a_teacher_that_stands_in_has(name):
    perfect, poor = (METRICS[name].measure(probed(predict)) for predict in (PERFECT[name], DATA.x0))
    assert perfect < 0.01 < 0.1 < poor


def test_the_path_is_the_teachers_own(monkeypatch):
    probe = probed(clean, replace(OPTS, teacher_guidance=2.5, teacher_steps=6))
    assert probe.parts.told == [(2, 2.5), (1, 2.5)]  # three prompts of five, in batches of two
    assert [path.states.shape[:2] for path in probe.paths] == [(7, 2), (7, 1)]
    wanted = tcd.solve(DATA.x0, SCHED, probe.paths[0].states[0], SCHED.last, SCHED.clean, 6, "heun")
    torch.testing.assert_close(probe.paths[0].states[-1], wanted)
    other = probed(clean, replace(OPTS, teacher_steps=6, teacher_solver="ddim"))
    assert not torch.allclose(other.paths[0].states[-1], wanted)


def test_no_number_of_probed_prompts_means_all():
    assert sum(len(path.prompts) for path in probed(clean, replace(OPTS, probe_prompts=0)).paths) == 5


def test_a_guided_student_is_probed_as_it_is_sampled():
    assert probed(clean, row=replace(ROW, w=2.0)).ode_error() < 0.01  # (1 + w) c - w c = c
    ways = [probed(DATA.x0, row=replace(ROW, tcf=tcf)).ode_error() for tcf in "12"]
    assert ways[0] != pytest.approx(ways[1], rel=0.01)


@pytest.fixture
def shown(tmp_path):
    """Pictures of noise and of one colour."""

    def write(name, contrast):
        paths = []
        for i in range(3):
            noise = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(i))
            pixels = (255 * (0.5 + contrast * (noise - 0.5))).byte().numpy()
            paths.append(tmp_path / f"{name}{i}.png")
            Image.fromarray(pixels).save(paths[-1])
        return Pictures(tuple(paths), (16, 16), batch=2)

    return write


def subject_of(opts, pictures, reference=None):
    return Subject(Tools(opts), pictures, ["a", "b", "c"], reference)


def test_pictures_are_measured_by_tcds_own_functions(shown):
    noise, flat = shown("noise", 1), shown("flat", 0)
    for name in ("high_frequency_energy", "compressed_size"):
        whole = getattr(tcd.metrics, name)(torch.cat(list(noise))).mean().item()
        assert METRICS[name](subject_of(OPTS, noise)) == pytest.approx(whole)
        assert METRICS[name](subject_of(OPTS, flat)) < whole / 5


def means(images):
    """Features for the test below."""
    return images.mean((1, 2))


def wide(images):
    return images.mean((1, 2, 3))


def test_frechet_is_between_the_features_that_are_asked_for(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "features_here", SimpleNamespace(means=means, wide=wide))
    noise, flat = shown("noise", 1), shown("flat", 0)
    opts = replace(OPTS, features="features_here:means")
    wanted = tcd.metrics.frechet_distance(*(means(torch.cat(list(pictures))) for pictures in (noise, flat)))
    assert METRICS["frechet"](subject_of(opts, noise, flat)) == pytest.approx(wanted)
    with pytest.raises(ValueError, match=re.escape("features features_here:wide must give [2, D], gave [2]")):
        METRICS["frechet"](subject_of(replace(OPTS, features="features_here:wide"), noise, flat))


@pytest.mark.parametrize("name", ["no_such_module:f", "torch:no_such_function", "torch"])
def test_features_that_are_no_function_are_named(name):
    with pytest.raises(ValueError, match=f"features.*'{name}'"):
        Tools(replace(OPTS, features=name)).features  # noqa: B018


def test_a_score_gets_the_arguments_that_it_asks_for(shown, monkeypatch, tmp_path):
    def fake(images, reference, captions, weights, device):
        return torch.tensor(
            [len(list(images)), len(list(reference)), len(captions), len(weights), float(device in ("cpu", "cuda"))]
        )

    monkeypatch.setitem(tcd.scores.SCORES, "fid", fake)
    metric, noise = metrics.score("fid"), shown("noise", 1)
    assert (metric.reference, metric.better) == (True, "lower")
    opts = replace(OPTS, metrics=("fid",), weights=(f"fid={tmp_path}",))
    assert metric(subject_of(opts, noise, noise)) == pytest.approx((2 + 2 + 3 + len(str(tmp_path)) + 1) / 5)


def test_every_score_is_a_metric():
    assert METRICS.keys() >= tcd.scores.SCORES.keys()
    assert {name for name in tcd.scores.SCORES if METRICS[name].reference} == {"fid", "fd_dino"}


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({"metrics": ("magic",)}, "metrics must be one of frechet, ode_error"),
        ({"metrics": ("drift", "drift")}, "metrics must each be there once"),
        ({"metrics": ("fid",)}, "metric fid needs its network: --weights fid=PATH"),
        ({"metrics": ("frechet",)}, "metric frechet needs --features package.module:function"),
        ({"weights": ("fid",)}, "weights must be metric=path, each of fid, "),
        ({"weights": ("drift=.",)}, "weights must be metric=path"),
        ({"weights": ("fid=.", "fid=.")}, "once; got 'fid=.'"),
        ({"weights": ("fid=gone",)}, "weights of fid do not exist: 'gone'"),
        ({"weights": ("fid=.",)}, "weights of fid have no effect unless metrics has fid"),
        ({"features": "a:b"}, "features has no effect unless metrics has frechet"),
        ({"real_data": "demo"}, "real_data has no effect unless metrics has one that compares pictures"),
        ({"teacher_steps": 1}, "self_consistency needs teacher_steps 2 at least, got 1"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_said_before_any_work(named, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        metrics.check(replace(EvaluateOptions(), **named))


RESULTS = [
    Result(Row("ddim", 2, 1.5), 4.0, {"drift": [], "compressed_size": [1.0, 3.0]}),
    Result(ROW, 4.0, {"drift": [0.5, 0.5], "compressed_size": [0.123456, 0.123456]}),
]
TABLE = replace(OPTS, metrics=("drift", "compressed_size"), seeds=(3, 4))


def test_the_table_has_mean_and_spread_of_the_seeds(tmp_path):
    report.write(replace(TABLE, output_dir=str(tmp_path)), RESULTS, 7)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| row | evaluations | drift (lower) | compressed_size |" in text
    assert "| ddim, 2 steps, w 1.5 | 4 | - | 2 +- 1.41 |" in text
    assert "| tcd, 4 steps, gamma 0.3, TCF(1) | 4 | 0.5 +- 0 | 0.1235 +- 0 |" in text
    lines = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith("pictures,evaluations,drift,drift_spread,compressed_size,compressed_size_spread")
    assert lines[1] == "ddim-steps2-w1.5,,ddim,2,0.0,,1.5,7,4.0,,,2.0,1.4142135623730951"
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    assert rows[0]["metrics"] == {"compressed_size": {"mean": 2.0, "spread": 2**0.5, "values": [1.0, 3.0]}}
    assert (rows[1]["gamma"], rows[1]["pictures"]) == (0.3, 7)


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    opts = replace(TABLE, output_dir=str(tmp_path))
    report.write(opts, RESULTS[:1], 7)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.write(opts, RESULTS, 7)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
