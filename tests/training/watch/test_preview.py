"""Sample pictures and the ODE error: what is sampled, how it is drawn, and that training does not notice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import host_process
import pytest
import torch
from exact_parts import exact_parts
from oracle import SCHEDULES
from PIL import Image

from training import host, options
from training.network import Parts
from training.watch import Preview, preview, sheet

UNCOND: Any = 0.25
MODELS = host.Models(
    SimpleNamespace(model=SimpleNamespace(latent_format=SimpleNamespace(latent_channels=3))), "clip", ""
)
FINE = "red --w 64 --h 32\nblue --n gray --w 64 --h 32 --d 9 --s 3\n"
CODES = {"red": 0.0, "blue": 0.0, "off": 0.5, "gray": 0.75}


@pytest.fixture
def opts(tmp_path):
    """Options with a file of these prompts, for a student that is exact."""

    def options_of(prompts=FINE, **named):
        (tmp_path / "prompts.txt").write_text(prompts, encoding="utf-8")
        made = {"tcf": "s+", "sample_steps": "1,2", "ode_error_steps": 4, "resolution": "64"}
        made |= {"sample_prompts": str(tmp_path / "prompts.txt"), "output_dir": str(tmp_path), "output_name": "run"}
        return options.Options(**made | named)

    return options_of


@pytest.fixture
def made(monkeypatch, opts):
    """Makes a Preview over exact parts, with texts as numbers and latents as pictures."""
    monkeypatch.setattr(host, "downscale", lambda models: 8)
    monkeypatch.setattr(host, "encode_text", lambda models, text: CODES[text])
    monkeypatch.setattr(host, "decode_latents", lambda models, x: x.movedim(1, -1).sigmoid())

    def of(prompts=FINE, sched="scaled_linear", **named):
        return Preview(MODELS, exact_parts(SCHEDULES[sched]), UNCOND, opts(prompts, **named))

    return of


@pytest.fixture
def drawn(monkeypatch):
    """The rows of every sheet that is drawn."""
    rows, draw = [], sheet.draw
    monkeypatch.setattr(sheet, "draw", lambda title, found: rows.append((title, found)) or draw(title, found))
    return rows


def test_a_sheet_has_a_row_for_each_prompt_and_a_column_for_each_number_of_steps(made, drawn, tmp_path):
    path = made().sheet(7)
    assert path == tmp_path / "sample" / "run-step00000007.png"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    ((title, rows),) = drawn
    assert title == "run after 7 steps, gamma 0.3"
    assert [row.text for row in rows] == ["red", "blue"]
    assert [list(row.pictures) for row in rows] == [
        ["teacher, 4 steps", "1 step", "2 steps"],
        ["teacher, 4 steps", "3 steps"],
    ]
    assert {picture.shape for row in rows for picture in row.pictures.values()} == {(4, 8, 3)}
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_the_noise_is_always_the_same_and_the_teacher_is_sampled_once(made):
    watching = made()
    first, second = watching.sheet(1), watching.sheet(2)
    watching.ode_error(2)
    assert len(watching.parts.teachers) == 2  # prompts
    rows = [watching.row(scene, scene.noise) for scene in watching.scenes]
    again = [watching.row(scene, scene.noise) for scene in watching.scenes]
    for row, other in zip(rows, again, strict=True):
        assert all(torch.equal(row.pictures[label], other.pictures[label]) for label in row.pictures)
    assert first != second
    assert not torch.equal(watching.scenes[0].noise, watching.scenes[1].noise)


def test_the_teacher_is_guided_by_the_mean_away_from_the_negative_prompt(made):
    watching = made(guidance_min=3.0, guidance_max=8.0)
    watching.sheet(1)
    size = host.Size(64, 32, 0, 0, 64, 32)
    assert watching.parts.teachers == [([0.0], UNCOND, [size], 5.5), ([0.0], 0.75, [size], 5.5)]


def test_the_student_is_guided_where_its_prompt_says_so(made):
    plain, guided = made("red --n gray --s 1"), made("red --n gray --s 1 --l 3")
    for watching in (plain, guided):
        watching.sheet(1)
    assert [conds for conds, _ in plain.parts.students] == [[0.0]]
    assert [conds for conds, _ in guided.parts.students] == [[0.0], [0.75]]


@pytest.mark.parametrize(("method", "gamma"), [("tcd", 0.6), ("cm", 1.0), ("lcm", 1.0), ("direct_cm", 1.0)])
def test_students_that_know_one_jump_alone_are_sampled_with_gamma_1(made, monkeypatch, method, gamma):
    asked, sample = [], preview.student_latents
    monkeypatch.setattr(preview, "student_latents", lambda *args: asked.append(args[6]) or sample(*args))
    made(method=method, sample_gamma=0.6).sheet(1)
    assert set(asked) == {gamma}


@pytest.mark.parametrize("sched", ["scaled_linear", "zero_snr", "flow_shift_3"])
def test_the_ode_error_is_how_far_one_step_is_from_the_teachers_many(made, sched):
    exact = made("red\nred --l 3", sched, ode_error_steps=100, solver="dpmpp_2s")
    assert exact.ode_error(1) < 0.03
    exact.scenes = [preview.replace(scene, cond=0.5) for scene in exact.scenes]  # the teacher's are kept
    assert exact.ode_error(2) == pytest.approx(0.5, abs=0.03)


def test_training_does_not_notice(made):
    watching, before = made(), torch.get_rng_state()
    modes = [module.training for module in watching.parts.trained.modules()]
    watching.sheet(1)
    watching.ode_error(1)
    assert torch.equal(before, torch.get_rng_state())
    assert [module.training for module in watching.parts.trained.modules()] == modes
    assert not any(watching.parts.grads)
    assert watching.models.clip is None  # whose memory is to be given back


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--w 60", "width and height must be multiples of 8, got 60 x 64"),
        ("--s 51", r"n must be in \[1, 50\] .* got 51"),
        ("--q 1", "flags must be one of"),
    ],
)
def test_a_prompt_that_cannot_be_sampled_is_named_before_the_run(made, line, message):
    with pytest.raises(ValueError, match=rf"prompts\.txt, line 2: {message}"):
        made(f"red\nred {line}")


def test_a_file_of_prompts_is_checked_without_a_model(opts):
    Preview.check(opts("red --w 64"))
    Preview.check(options.Options())
    with pytest.raises(ValueError, match=r"prompts\.txt, line 1: --w must be"):
        Preview.check(opts("red --w much"))


def test_a_student_that_is_not_finite_is_named_with_the_step(made, monkeypatch):
    watching = made()
    monkeypatch.setitem(vars(watching.parts.data), "mu", float("nan"))
    watching.references = [scene.noise for scene in watching.scenes]
    with pytest.raises(ValueError, match=r"sample pictures after 12 steps: .* not finite"):
        watching.sheet(12)


def test_a_sheet_that_cannot_be_written_leaves_the_one_that_was_there(made, monkeypatch):
    watching = made()
    path = watching.sheet(1)
    before = path.read_bytes()

    def full(self, file, **named):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        watching.sheet(1)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# The drawing.


def test_pictures_are_shown_as_they_are_and_none_covers_another():
    colors = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
    pictures = {name: torch.tensor(color).expand(200, 300, 3) for name, color in colors.items()}
    words = "a long prompt " * 60
    image = sheet.draw("title", [sheet.Row(words, pictures), sheet.Row("", dict([*pictures.items()][:1]))])
    counts = {color: count for count, color in image.getcolors(2**20) or ()}
    assert counts[255, 0, 0] == 2 * 200 * 300
    assert counts[0, 255, 0] == counts[0, 0, 255] == 200 * 300


@pytest.mark.parametrize(("side", "shown"), [(64, 192), (300, 300), (2048, 512)])
def test_small_pictures_are_enlarged_and_large_ones_made_smaller(side, shown):
    tile = sheet.scaled(torch.rand(side // 2, side, 3))
    assert tile.size == (shown, shown // 2)


# With the real tiny model.


@pytest.mark.host
@pytest.mark.slow
def test_the_tiny_models_pictures_are_the_prompts(opts, drawn, tmp_path):
    host_process.pack()
    demo = host_process.ROOT / "demo"
    found = opts(
        "red heart --d 1\nblue heart --d 2 --n face --w 96 --s 4\n",
        pretrained_model_name_or_path=str(demo / "tiny.safetensors"),
        checkpoint_loader="demo.tiny:load",
        network_weights=str(demo / "loras" / "tcd_tiny_lora.safetensors"),
        dim_from_weights=True,
        resolution="128",
        tcf="1",
        ode_error_steps=10,
        guidance_min=3.0,
        guidance_max=3.0,
    )
    models = host.load_teacher(found)
    watching = Preview(models, Parts(models, found), host.encode_text(models, ""), found)
    before = torch.get_rng_state()
    assert watching.sheet(0).is_file()
    assert 0 < watching.ode_error(0) < 1
    assert torch.equal(before, torch.get_rng_state())
    ((_, (red, blue)),) = drawn
    assert {picture.shape for picture in red.pictures.values()} == {(128, 128, 3)}
    assert {picture.shape for picture in blue.pictures.values()} == {(128, 96, 3)}
    for picture in red.pictures.values():
        assert picture.mean((0, 1)).argmax() == 0
        assert picture.std() > 0.1
    assert blue.pictures["4 steps"].mean((0, 1)).argmax() == 2
