"""Pictures and numbers of the tiny model on three captions and two seeds: made once, and what they should be."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset_files import add
from host_process import ROOT, pack
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file
from short_runs import pictures

import tcd
from demo import features, sheets
from demo.reproduce import trainings
from demo.reproduce.lab import DETAIL, MEASURES, NAMES, TINY, Base, Lab, Measured, evenly, student_row
from demo.reproduce.recipes import W
from demo.reproduce.scale import Scale
from training.evaluate.metrics import Tools
from training.evaluate.pictures import KEY, Folder, marks
from training.evaluate.rows import Row

pytestmark = [pytest.mark.host, pytest.mark.slow]

LORA = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
SCALE = Scale(
    steps=2,
    batch=2,
    direct_steps=2,
    direct_batch=2,
    tuning_steps=2,
    captions=3,
    seeds=(0, 1),
    probes=2,
    fine=4,
)
ROW, OTHER = Row("ddim", 1, W), Row("ddim", 1, 0.0)


def learned(lab, name, metadata):
    """Put the shipped LoRA where this student's would be, with its stamp."""
    training = lab.training(name)
    training.folder.mkdir(parents=True, exist_ok=True)
    save_file(load_file(LORA), training.lora, metadata)
    training.stamp.write_text(training.recipe, encoding="ascii")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pack()
    folder = tmp_path_factory.mktemp("lab")
    data = pictures(folder / "data", ((128, 128),))  # hearts in four colours, of which three are asked for
    add(data / "2_hearts", "red_1.png", "a red heart", (128, 128), "darkred")
    made = Lab(SCALE, folder / "runs", data, folder / "docs" / "results.md")
    learned(made, "tcd", {"tcd.method": "tcd"})
    learned(made, "tcf2", {"tcd.method": "tcd", "tcd.tcf": "2"})
    learned(made, "lcm", {"tcd.method": "lcm"})
    return made


def again(lab):
    """What a second run of the program has: the files, and nothing in memory but the model."""
    bench = lab.bench()
    return replace(lab, benches={TINY: replace(bench, tools=Tools(bench.opts))})


@pytest.fixture
def no_work(monkeypatch):
    """Nothing is sampled or measured from here on."""

    def fail(*args):
        raise AssertionError("this was there already")

    def forbid():
        monkeypatch.setattr(Folder, "sample", fail)
        for name in MEASURES:
            monkeypatch.setitem(MEASURES, name, fail)

    return forbid


def images(paths):
    """[n, H, W, 3] in [0, 1], read without the code that is tested."""
    return torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])).float() / 255


# --- Students --------------------------------------------------------------------------------------------


def test_a_student_is_sampled_as_its_file_says(lab):
    tcd_, tcf2, lcm = (lab.student(name) for name in ("tcd", "tcf2", "lcm"))
    assert student_row(tcd_, 4) == Row("tcd", 4, 0.0, 0.3, "1", tcd_)
    assert student_row(tcd_, 4, 0.0) == Row("tcd", 4, 0.0, 0.0, "1", tcd_)
    assert student_row(tcf2, 2) == Row("tcd", 2, 0.0, 0.3, "2", tcf2)
    assert student_row(lcm, 8) == Row("lcm", 8, 0.0, 1.0, "1", lcm)
    assert lab.student("tcd", "ours").name == "ours"


def test_students_that_are_there_are_not_trained_and_those_that_are_not_are_named(lab, monkeypatch):
    monkeypatch.setattr(trainings.subprocess, "run", lambda *args, **named: pytest.fail("trained again"))
    lab.distil(["tcd", "tcf2", "lcm"])
    with pytest.raises(ValueError, match=r"network_weights 'splus=.*': no such LoRA file"):
        lab.student("splus")


# --- What is sampled -------------------------------------------------------------------------------------


def test_captions_are_spread_over_the_data_and_every_seed_has_noise_of_its_own(lab):
    bench = lab.bench()
    assert bench.known == ["a blue heart", "a green heart", "a red heart", "a yellow heart"]
    assert bench.texts == [bench.known[i] for i in (0, 2, 3)]
    assert [[prompt.text for prompt in prompts] for prompts in bench.seeds] == [bench.texts] * 2
    numbered = [prompt for prompts in bench.seeds for prompt in prompts]
    assert [prompt.index for prompt in numbered] == list(range(6))
    assert len({prompt.seed for prompt in numbered}) == 6
    assert [path.name for path in bench.real.paths] == ["blue.png", "green.png", "red.png", "red_1.png", "yellow.png"]
    assert lab.bench() is bench


@pytest.mark.parametrize(
    ("row", "student", "wanted"),
    [
        (Row("ddim", 2, W), "", 4),
        (Row("ddim", 2, 0.0), "", 2),
        (Row("dpmpp_2s", 1, W), "", 4),
        (4, "tcd", 4),
        (2, "tcf2", 4),
        (2, "lcm", 2),
    ],
    ids=str,
)
def test_evaluations_of_the_network_are_counted_for_every_method(lab, row, student, wanted):
    row = student_row(lab.student(student), row) if student else row
    (prompt, *_), bench = lab.bench().seeds[0], lab.bench()
    bench.pictures(row, [prompt])
    assert Folder(bench.opts, row).evaluations(prompt) == wanted


def test_a_row_is_sampled_and_measured_once(lab, no_work):
    first = lab.bench().measure(ROW)
    assert first.evaluations == 2
    assert set(first.values) == set(NAMES)
    assert all(len(values) == 2 for values in first.values.values())
    no_work()
    assert lab.bench().measure(ROW) == first
    assert again(lab).bench().measure(ROW) == first


def test_some_of_the_pictures_are_no_reason_to_sample_them_again(lab, monkeypatch):
    row, asked, sample = Row("ddim", 1, 2.0), [], Folder.sample
    monkeypatch.setattr(Folder, "sample", lambda *args: asked.extend(args[-1]) or sample(*args))
    bench = lab.bench()
    bench.pictures(row, bench.seeds[0][:2])
    bench.pictures(row, bench.seeds[0])
    assert asked == bench.seeds[0]
    bench.measure(row)
    assert asked == bench.seeds[0] + bench.seeds[1]


# --- What is measured ------------------------------------------------------------------------------------


def numbers(lab, paths):
    """What should be measured of these pictures, one for each caption."""
    bench, made, real = lab.bench(), images(paths), images(sorted(lab.data.rglob("*.png")))
    described = features.describe(made)
    return {
        "frechet": tcd.metrics.frechet_distance(described, features.describe(real)),
        "retrieval": features.retrieval(described, bench.texts, bench.known),
        "complexity": tcd.metrics.high_frequency_energy(made, cutoff=DETAIL).mean().item(),
        "size": tcd.metrics.compressed_size(made).mean().item(),
    }


def of_seed(found, i):
    return {name: values[i] for name, values in found.values.items()}


def test_numbers_are_those_of_the_pictures_seed_by_seed(lab):
    found, folder = lab.bench().measure(ROW), lab.folder / "pictures" / "tiny" / ROW.name
    for i, seed in enumerate(((0, 1, 2), (3, 4, 5))):
        wanted = numbers(lab, [folder / f"{number:05d}.png" for number in seed])
        assert of_seed(found, i) == pytest.approx(wanted, rel=1e-4)
    assert found.values["frechet"][0] != found.values["frechet"][1]


def test_real_pictures_are_measured_too_another_one_of_each_caption_for_each_seed(lab):
    found, folder = lab.bench().measure_real(), lab.data / "2_hearts"
    for i, red in enumerate(("red", "red_1")):
        wanted = numbers(lab, [folder / f"{name}.png" for name in ("blue", red, "yellow")])
        assert of_seed(found, i) == pytest.approx(wanted, rel=1e-4)
    assert found.evaluations == 0


def test_to_other_pictures_there_is_a_distance_alone_and_nothing_is_mixed_up(lab, no_work):
    bench = lab.bench()
    real, other = bench.measure(ROW), bench.pictures(OTHER, bench.seeds[0])
    among = bench.measure(ROW, among=other)
    assert among.evaluations == real.evaluations
    assert among.values.keys() == {"frechet"}
    assert among.values["frechet"] != real.values["frechet"]
    no_work()
    assert (bench.measure(ROW), bench.measure(ROW, among=other)) == (real, among)


def repaint(path, color, keep_marks):
    """Another picture in this file, which says of itself what it said before, or nothing."""
    told = PngInfo()
    for name, value in marks(path).items() if keep_marks else ():
        told.add_text(name, value)
    Image.new("RGB", (128, 128), color).save(path, pnginfo=told)
    os.utime(path, ns=(1, hash((color, keep_marks)) % 10**9))  # clocks may be too coarse to tell


def test_a_picture_that_was_changed_is_measured_anew(lab):
    before = lab.bench().measure(OTHER)
    path = lab.folder / "pictures" / "tiny" / OTHER.name / "00003.png"
    repaint(path, "black", keep_marks=True)
    after = again(lab).bench().measure(OTHER)
    for name in ("frechet", "complexity", "size"):
        assert after.values[name][0] == before.values[name][0]
        assert after.values[name][1] != before.values[name][1]


def test_a_picture_that_was_not_made_so_is_made_again(lab):
    before = lab.bench().measure(ROW)
    path = lab.folder / "pictures" / "tiny" / ROW.name / "00003.png"
    repaint(path, "black", keep_marks=False)
    after = again(lab).bench().measure(ROW)
    assert KEY in marks(path)
    for name, values in after.values.items():  # the same picture, but for a batch of another size
        assert values == pytest.approx(before.values[name], rel=1e-3)


def test_a_real_picture_that_was_changed_is_compared_with_anew(lab):
    before, path = lab.bench().measure(ROW), next(lab.data.rglob("green.png"))
    kept = path.read_bytes()
    repaint(path, "purple", keep_marks=False)
    after = again(lab).bench().measure(ROW)
    assert all(a != b for a, b in zip(after.values["frechet"], before.values["frechet"], strict=True))
    path.write_bytes(kept)
    assert again(lab).bench().measure(ROW) == before


def test_another_lora_in_the_same_place_is_sampled_anew(lab):
    def picture():
        bench = again(lab).bench()
        return torch.cat(list(bench.pictures(student_row(lab.student("splus"), 1), bench.seeds[0][:1])))

    learned(lab, "splus", {"tcd.method": "tcd"})
    before = picture()
    halved = {key: tensor / 2 if key.endswith("lora_up.weight") else tensor for key, tensor in load_file(LORA).items()}
    save_file(halved, lab.training("splus").lora, {"tcd.method": "tcd"})
    assert (picture() - before).abs().mean() > 0.01
    lab.training("splus").lora.unlink()


# --- Other bases -----------------------------------------------------------------------------------------


def test_a_base_may_have_loras_captions_and_real_pictures_of_its_own(lab, tmp_path):
    folder = tmp_path / "3_other"
    folder.mkdir()
    for color in ("red", "yellow"):
        for ending in ("png", "txt"):
            shutil.copy(lab.data / "2_hearts" / f"{color}.{ending}", folder)
    own = Base("merged", loras=(lab.training("tcd").lora,), real=str(folder), captions=str(tmp_path))
    bench = lab.bench(own)
    assert bench.texts == bench.known == ["a red heart", "a yellow heart"]
    assert [path.name for path in bench.real.paths] == ["red.png", "yellow.png"]
    row, prompts = Row("ddim", 1, 1.0), bench.seeds[0]
    merged, alone = (torch.cat(list(each.pictures(row, prompts))) for each in (bench, lab.bench()))
    assert (merged - alone).abs().mean() > 0.01  # the same captions and noise
    assert (lab.folder / "pictures" / "merged" / row.name / "00001.png").is_file()
    assert lab.bench(own) is bench


# --- What the page shows ---------------------------------------------------------------------------------


def test_a_sheet_shows_evenly_spread_captions_by_row_and_lies_beside_the_page(lab):
    text = lab.sheet("two_rows", {"one": ROW, "two": OTHER}, count=2)
    assert text == "![two rows](images/results_two_rows.png)"
    bench, path = lab.bench(), lab.page.parent / "images" / "results_two_rows.png"
    with Image.open(path) as sheet:
        assert sheet.size == (sheets.LABEL + 2 * 128, sheets.CAPTION + 2 * 128)
        corner = (sheets.LABEL + 128, sheets.CAPTION)
        shown = np.asarray(sheet.crop((*corner, corner[0] + 128, corner[1] + 128)))
    folder = Folder(bench.opts, ROW)
    assert np.array_equal(shown, np.asarray(Image.open(folder.file(bench.seeds[0][2]))))


def test_measured_numbers_are_told_with_their_spread():
    found = Measured(4.0, {"frechet": [1.0, 3.0], "retrieval": [0.5, 0.75], "size": [2.0]})
    assert (found.mean("frechet"), found.spread("size")) == (2.0, 0.0)
    assert found.spread("frechet") == pytest.approx(2**0.5)
    assert found.cell("frechet") == "2.000 +- 1.414"
    assert found.cell("retrieval") == "62.5 +- 17.7%"


def test_nothing_is_picked():
    assert evenly(1599, 3) == [0, 799, 1598]
    assert evenly(5, 5) == evenly(5, 9) == [0, 1, 2, 3, 4]
    assert evenly(1, 8) == [0]
