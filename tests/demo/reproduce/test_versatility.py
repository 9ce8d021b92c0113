"""TCD on tuned bases: the looks, how the bases are made, the verdicts, and all of it at the smallest scale."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import add
from host_process import ROOT
from PIL import Image

from demo.reproduce.claims import AGREES, DIFFERS, OPEN
from demo.reproduce.experiments import versatility
from demo.reproduce.experiments.versatility import LOOKS, Found
from demo.reproduce.finetune import Tuning
from demo.reproduce.lab import CHECKPOINT, NAMES, TINY, Base, Lab, Measured
from demo.reproduce.scale import Scale
from training.evaluate.loras import LoraFile, lora_file
from training.evaluate.rows import Row

FACES, PAPER = LOOKS
CAPTIONS = {"1f600": "grinning face", "1f601": "beaming face with eyes", "2764": "red heart", "1f30a": "water surface"}
SCALE = Scale(
    steps=1,
    batch=2,
    direct_steps=1,
    direct_batch=1,
    tuning_steps=1,
    captions=3,
    seeds=(0, 1),
    probes=1,
    fine=2,
)


class TinyLab(Lab):
    """A lab whose student is the LoRA that comes with the tiny model."""

    def student(self, name: str, alias: str = "") -> LoraFile:
        return lora_file(f"{alias or name}={ROOT / 'demo' / 'loras' / 'tcd_tiny_lora.safetensors'}")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Four emoji in two views each."""
    for i, (code, caption) in enumerate(CAPTIONS.items()):
        for view in (code, f"{code}_1"):
            add(tmp_path / "data" / "1_emoji", f"{view}.png", caption, (128, 128), (200, 40 * i, 0))
    return TinyLab(SCALE, tmp_path / "lab", tmp_path / "data", tmp_path / "docs" / "results.md")


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[Tuning]:
    """What was to be tuned; nothing is."""
    asked = list[Tuning]()

    def note(tuning: Tuning) -> Path:
        asked.append(tuning)
        return tuning.file

    monkeypatch.setattr(versatility, "tune", note)
    return asked


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_yellow_face_turns_blue_and_what_has_no_colour_stays():
    picture = Image.fromarray(np.array([[[255, 200, 40], [255, 255, 255], [90, 90, 90]]], np.uint8))
    assert np.asarray(versatility.blue(picture)).tolist() == [[[40, 200, 255], [255, 255, 255], [90, 90, 90]]]


def test_a_paper_cut_has_a_few_tones_of_red_on_white():
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), 3, axis=2)
    tones = np.unique(np.asarray(versatility.paper_cut(Image.fromarray(grey)))[0], axis=0)
    assert len(tones) == versatility.TONES + 1
    assert tones[-1].tolist() == [255, 255, 255]
    assert all(red > green and red > blue for red, green, blue in tones[:-1].tolist())


def test_a_word_is_a_whole_word_and_upright_is_one_view_of_each(lab: Lab):
    faces = ["1f600.png", "1f600_1.png", "1f601.png", "1f601_1.png"]
    assert names(versatility.chosen(FACES, lab.data)) == faces
    assert names(versatility.chosen(PAPER, lab.data)) == ["1f30a.png", "1f600.png", "1f601.png", "2764.png"]


def test_a_look_without_pictures_says_which_it_needs(tmp_path: Path):
    add(tmp_path / "1_emoji", "2764.png", "red heart")
    with pytest.raises(ValueError, match=r"blue_faces needs pictures with the word 'face' in their captions.*none in"):
        versatility.chosen(FACES, tmp_path)


def test_a_folder_has_the_changed_pictures_with_their_captions_and_nothing_else(lab: Lab):
    folder = lab.folder / "looks" / "blue_faces"
    add(folder / "1_emoji", "stale.png")
    assert versatility.draw(FACES, lab.data, folder) == folder
    inside = sorted((folder / "1_emoji").iterdir())
    assert names(inside) == [
        f"{code}{end}" for code in ("1f600", "1f600_1", "1f601", "1f601_1") for end in (".png", ".txt")
    ]
    with Image.open(inside[0]) as image:
        assert image.getpixel((0, 0)) == (0, 0, 200)
    assert versatility.caption(inside[4]) == CAPTIONS["1f601"]


def test_pictures_that_are_drawn_anew_do_not_ask_for_another_training(lab: Lab, tuned: list[Tuning]):
    recipes = [(versatility.base_of(lab, FACES), tuned[-1].recipe)[1] for _ in range(2)]
    assert recipes[0] == recipes[1]


def test_a_tuned_checkpoint_is_sampled_on_its_own_captions_and_a_style_on_all(lab: Lab, tuned: list[Tuning]):
    faces, paper = (versatility.base_of(lab, look) for look in LOOKS)
    looks = lab.folder / "looks"
    drawn = str(looks / "blue_faces")
    assert faces == Base("blue_faces", looks / "blue_faces.safetensors", (), drawn, drawn)
    assert paper == Base("paper_cut", CHECKPOINT, (looks / "paper_cut.safetensors",), str(looks / "paper_cut"), "")
    assert [tuning.rank for tuning in tuned] == [FACES.rank, PAPER.rank] == [0, 8]
    assert {(tuning.steps, tuning.batch) for tuning in tuned} == {(SCALE.tuning_steps, SCALE.batch)}


def test_the_unchanged_model_shares_pictures_only_with_the_same_captions(lab: Lab, tuned: list[Tuning]):
    faces, paper = (versatility.unchanged(versatility.base_of(lab, look)) for look in LOOKS)
    assert {(base.checkpoint, base.loras) for base in (faces, paper)} == {(CHECKPOINT, ())}
    assert paper.name == TINY.name
    assert paper.real != TINY.real
    assert faces.name != TINY.name
    assert faces.captions == faces.real


def measured(*frechet: float) -> Measured:
    return Measured(2, {name: list(frechet) for name in NAMES})


def found(ddim: tuple, tcd: tuple, unchanged: tuple = (9.0, 9.0)) -> Found:
    """Frechet distances of two seeds; the same at every number of steps."""
    steps = versatility.STEPS
    by = {n: measured(*ddim) for n in steps}, {n: measured(*tcd) for n in steps}
    return Found(measured(1.0, 1.0), *by, measured(*unchanged), measured(0.0, 0.0))


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        (found((5.0, 5.0), (3.0, 4.0)), AGREES),
        (found((5.0, 5.0), (6.0, 7.0)), DIFFERS),
        (found((5.0, 5.0), (3.0, 6.0)), OPEN),
        (found((5.0, 5.0), (3.0, 4.0), unchanged=(2.0, 2.0)), DIFFERS),  # ahead of DDIM, and without the look
        (found((5.0, 5.0), (3.0, 4.0), unchanged=(2.0, 5.0)), OPEN),
    ],
)
def test_a_claim_holds_where_tcd_is_ahead_of_ddim_and_keeps_the_look(numbers: Found, wanted: str):
    assert versatility.claim(FACES, numbers).verdict == wanted


def test_one_number_of_steps_at_which_ddim_is_ahead_is_enough_to_differ():
    numbers = found((5.0, 5.0), (3.0, 4.0))
    numbers.ddim[8] = measured(1.0, 1.0)
    claim = versatility.claim(PAPER, numbers)
    assert claim.verdict == DIFFERS
    assert "2 of 3 comparisons agree, 1 does not; with the paper's count 1 of 2" in claim.measured
    assert "a style LoRA" in claim.statement


@pytest.mark.host
@pytest.mark.slow
def test_a_base_with_fewer_captions_than_wanted_has_all_of_them(lab: Lab, tuned: list[Tuning]):
    bench = lab.bench(versatility.unchanged(versatility.base_of(lab, FACES)))
    assert bench.texts == bench.known == ["grinning face", "beaming face with eyes"]
    assert [[prompt.index for prompt in prompts] for prompts in bench.seeds] == [[0, 1], [2, 3]]
    assert len(bench.real.paths) == 4


@pytest.mark.host
@pytest.mark.slow
def test_all_of_it_makes_a_section_with_a_claim_for_each_base(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(versatility, "TEACHER", Row("ddim", 2, 3.0))
    monkeypatch.setattr(versatility, "STEPS", (4,))
    section = versatility.run(lab)
    assert [claim.statement for claim in section.claims] == [
        f"TCD can be applied as it is to {kind}, with high quality in only 2-8 steps"
        for kind in ("a tuned checkpoint", "a style LoRA")
    ]
    for look in LOOKS:
        assert f"### {look.title}" in section.text
        with Image.open(lab.images / f"results_versatility_{look.name}.png") as sheet:
            assert sheet.format == "PNG"
    lines = [line.split(" | ") for line in section.text.splitlines() if line.startswith("| TCD, 4 evaluations")]
    own, unchanged = lines[:2]
    assert len(lines) == 4
    assert "unchanged" in unchanged[0]
    assert own[1] != unchanged[1]  # one step of training shows
