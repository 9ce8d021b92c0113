"""The evaluator on two prompts and the tiny model: what it writes, what it uses again, and what it samples."""

import csv
import json
from dataclasses import replace

import host_process
import pytest
import torch
from host_process import ROOT
from PIL import Image
from safetensors.torch import save_file

import tcd
from tcd import embed, lora
from training import host
from training.evaluate import EvaluateOptions, __main__, check, evaluate, evaluation
from training.evaluate.evaluation import Evaluation
from training.evaluate.loras import loaded, lora_file
from training.evaluate.pictures import Folder
from training.host import Size
from training.options import to_toml

pytestmark = [pytest.mark.host, pytest.mark.slow]

LORA = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
SIZE = Size(128, 128, 0, 0, 128, 128)


@pytest.fixture(scope="module")
def opts(tmp_path_factory):
    host_process.pack()
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "prompts.txt").write_text("red heart\nblue whale\n", encoding="utf-8")
    return check(
        EvaluateOptions(
            pretrained_model_name_or_path=str(ROOT / "demo" / "tiny.safetensors"),
            checkpoint_loader="demo.tiny:load",
            network_weights=(f"tiny={LORA}",),
            prompts=str(folder / "prompts.txt"),
            methods=("tcd:steps=2", "tcd:steps=1", "ddim:steps=1,w=3"),
            metrics=(*EvaluateOptions.metrics, "frechet"),
            features="demo.features:describe",
            resolution="128",
            batch_size=2,
            teacher_steps=2,
            teacher_guidance=3.0,
            output_dir=str(folder / "out"),
        )
    )


@pytest.fixture(scope="module")
def done(opts):
    """(evaluation, its folder)"""
    path = evaluate(opts)
    return Evaluation(opts), path.parent


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_all_rows_are_sampled_and_measured(done):
    found, folder = done
    names = [row.name for row in found.rows]
    assert names == [
        "dpmpp_2s-steps2-w3",
        "ddim-steps1-w3",
        "tiny-tcd-steps2-gamma0.3-tcf1-w0",
        "tiny-tcd-steps1-gamma0.3-tcf1-w0",
    ]
    assert {path.name for path in folder.iterdir()} == {
        *names,
        *("results.md", "results.csv", "results.json", "sheet.png"),
    }
    assert [path.name for path in sorted((folder / names[0]).iterdir())] == ["00000.png", "00001.png"]
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == names
    assert [float(row["evaluations"]) for row in rows] == [8, 2, 2, 1]  # a guided step is two, a 2S step twice that
    measured = {row["row"]: {name for name in found.metrics if row[name]} for row in rows}
    assert measured[names[2]] == set(found.metrics)
    assert measured[names[3]] == set(found.metrics) - {"drift"}
    assert measured[names[0]] == {"high_frequency_energy", "compressed_size", "frechet"}
    assert abs(float(rows[0]["frechet"])) < 1e-6 < float(rows[1]["frechet"])  # the teacher against itself


def test_students_are_near_the_teacher_and_the_sheet_shows_them(done):
    found, folder = done
    teacher, _, two, one = (torch.cat(list(Folder(found.opts, row).pictures(found.seeds[0]))) for row in found.rows)
    assert ((two - teacher).abs().mean()) < 0.15 < (two - teacher.flip(0)).abs().mean()  # the same prompts and noise
    assert not torch.equal(one, two)
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 2 * 192
        assert sheet.height > 4 * 192


def test_a_second_run_uses_the_pictures_again(done, opts, monkeypatch):
    before = contents(done[1])

    def sample(*args):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(Folder, "sample", sample)
    evaluate(opts)
    assert contents(done[1]) == before


def test_the_command_line_does_the_same(done, opts, tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.toml"
    config.write_text(to_toml(replace(opts, **QUICK)), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["evaluate", "--config_file", str(config), "--output_dir", str(tmp_path / "out")])
    __main__.main()
    assert capsys.readouterr().out == f"wrote {tmp_path / 'out' / 'results.md'}\n"
    row = "ddim-steps1-w3"
    assert contents(tmp_path / "out" / row) == contents(done[1] / row)


QUICK = {"methods": ("ddim:steps=1,w=3",), "metrics": ("compressed_size",), "features": "", "network_weights": ()}


def first_picture(opts, folder, **named):
    made = evaluate(check(replace(opts, **(QUICK | named), output_dir=str(folder))))
    return next(path for path in sorted(made.parent.rglob("00000.png"))).read_bytes(), made


@pytest.mark.parametrize(
    "other",
    [{"uncond": "zeros"}, {"mixed_precision": "bf16"}, {"resolution": "64,128"}],
    ids=str,
)
def test_another_setting_makes_other_pictures(done, opts, tmp_path, other):
    made, _ = first_picture(opts, tmp_path, **other)
    assert made != (done[1] / "ddim-steps1-w3" / "00000.png").read_bytes()
    if "resolution" in other:
        with Image.open(tmp_path / "ddim-steps1-w3" / "00000.png") as picture:
            assert picture.size == (64, 128)


def test_real_pictures_are_compared_with_instead_of_the_teachers(opts, tmp_path):
    for color in ("red", "blue"):
        (tmp_path / "real").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), color).save(tmp_path / "real" / f"{color}.png")
    named = {"metrics": ("frechet",), "features": opts.features, "real_data": str(tmp_path / "real")}
    _, table = first_picture(opts, tmp_path / "out", **named)
    rows = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
    assert [row["row"] for row in rows] == ["ddim-steps1-w3"]  # no teacher
    assert rows[0]["metrics"]["frechet"]["mean"] > 1
    assert str(tmp_path / "real") in table.read_text(encoding="utf-8")


def test_several_seeds_are_several_pictures_of_each_prompt(opts, tmp_path, monkeypatch):
    draw, sheets = evaluation.sheet.draw, []
    monkeypatch.setattr(evaluation.sheet, "draw", lambda title, rows: sheets.append(rows) or draw(title, rows))
    _, table = first_picture(opts, tmp_path, seeds=(0, 1), sheet_prompts=1)
    (row,) = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
    assert len(row["metrics"]["compressed_size"]["values"]) == 2
    assert len(list((tmp_path / "ddim-steps1-w3").iterdir())) == 4
    assert [[*row.pictures] for row in sheets[0]] == [["1. red heart"]]


def test_a_metric_that_lacks_its_library_or_weights_stops_before_the_model_is_loaded(opts, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation.host, "load_teacher", lambda opts: pytest.fail("the model was loaded"))
    named = {"metrics": ("fid",), "weights": (f"fid={LORA}",)}
    with pytest.raises(ValueError, match="metric fid: "):
        first_picture(opts, tmp_path, **named)


def test_a_distance_needs_two_prompts(opts, tmp_path):
    with pytest.raises(ValueError, match="a distance between pictures needs two prompts at least, got 1"):
        evaluate(replace(opts, max_prompts=1, output_dir=str(tmp_path)))


def test_a_lora_that_does_not_fit_stops_before_any_sampling(opts, tmp_path):
    path = tmp_path / "strange.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(1, 2), "lora_unet_x.lora_up.weight": torch.ones(2, 1)}, path)
    methods, files = ("ddim:steps=1", "tcd:steps=1"), (str(LORA), str(path))
    with pytest.raises(
        ValueError, match=r"network_weights .*strange\.safetensors: 1 of 1 modules are not in this network"
    ):
        first_picture(opts, tmp_path / "out", methods=methods, network_weights=files)
    assert not list(tmp_path.rglob("*.png"))


def test_too_many_steps_stop_before_any_sampling(opts, tmp_path):
    with pytest.raises(ValueError, match=r"n must be in \[1, 50\]"):
        first_picture(opts, tmp_path, methods=("ddim:steps=1", "tcd:steps=51"))
    assert not list(tmp_path.rglob("*.png"))


@pytest.fixture(scope="module")
def models(opts):
    return host.place(host.load_teacher(opts.model))


@pytest.fixture
def asked(models):
    """What a network says of fixed noise at the noisiest time, of a prediction and an end."""
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).to(models.device)
    return lambda predict, s=0.0: predict(x, torch.tensor(models.sched.last), torch.tensor(s))


@torch.no_grad()
def test_a_lora_is_on_for_the_student_alone_and_goes_again(models, opts, asked):
    cond = host.encode_text(models, "red heart")
    with loaded(models, opts.model, None) as parts:
        bare = asked(parts.student([cond], [SIZE]))
        assert torch.equal(asked(parts.teacher([cond], cond, [SIZE], 0.0)), bare)
        assert parts.net.evaluated == 2
        guided = asked(parts.teacher([cond], host.encode_text(models, ""), [SIZE], 3.0))
        assert parts.net.evaluated == 4
        assert not torch.allclose(guided, bare)
    with loaded(models, opts.model, lora_file(str(LORA))) as parts:
        assert torch.equal(asked(parts.teacher([cond], cond, [SIZE], 0.0)), bare)
        assert not torch.allclose(asked(parts.student([cond], [SIZE])), bare)
    with loaded(models, opts.model, None) as parts:
        assert torch.equal(asked(parts.student([cond], [SIZE])), bare)


@torch.no_grad()
def test_a_lora_of_splus_is_told_the_target_time(models, opts, asked, tmp_path):
    embedding = tcd.TargetTime(256, 64)
    torch.nn.init.normal_(embedding.out.weight, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "splus.safetensors"
    save_file(lora.read(LORA)[0] | embed.to_tensors(embedding), path, {"tcd.method": "tcd", "tcd.tcf": "s+"})
    cond = host.encode_text(models, "red heart")
    with loaded(models, opts.model, lora_file(str(path))) as parts:
        student, teacher = parts.student([cond], [SIZE]), parts.teacher([cond], cond, [SIZE], 0.0)
        assert not torch.allclose(asked(student, 0.0), asked(student, 500.0))
        assert torch.equal(asked(teacher, 0.0), asked(teacher, 500.0))
    with loaded(models, opts.model, lora_file(str(LORA))) as parts:
        student = parts.student([cond], [SIZE])
        assert torch.equal(asked(student, 0.0), asked(student, 500.0))
