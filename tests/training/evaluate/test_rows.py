"""Ways to sample, as they are written on the command line."""

import re
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tcd
from tcd import embed
from training.evaluate import EvaluateOptions, rows
from training.evaluate.loras import LoraFile, lora_file, lora_files
from training.evaluate.rows import Row, rows_of, teacher_row

PLAIN, LCM = LoraFile("plain", None, 0.3, "1"), LoraFile("lcm", None, 1.0, "2")  # pyright: ignore[reportArgumentType]


def made(*methods, files=()):
    return rows_of(EvaluateOptions(methods=methods), files)


def test_a_student_has_a_row_for_each_lora_and_a_solver_one():
    found = made("tcd:steps=2,w=1.5", "heun:steps=3,w=6.5", files=[PLAIN, LCM])
    assert found == [
        Row("heun", 3, 6.5),
        Row("tcd", 2, 1.5, 0.3, "1", PLAIN),
        Row("tcd", 2, 1.5, 1.0, "2", LCM),
    ]


def test_rows_of_one_lora_stand_together():
    found = made("tcd:steps=1", "tcd:steps=2", files=[PLAIN, LCM])
    assert [(row.lora, row.steps) for row in found] == [(PLAIN, 1), (PLAIN, 2), (LCM, 1), (LCM, 2)]


def test_gamma_and_order_are_the_loras_unless_given():
    assert made("tcd:steps=2,gamma=0.7,tcf=1", files=[LCM])[0] == Row("tcd", 2, 0.0, 0.7, "1", LCM)
    assert made("lcm:steps=2", files=[PLAIN])[0].gamma == 1


def test_without_a_lora_the_checkpoint_is_the_student():
    assert made("tcd") == [Row("tcd", 4, 0.0, 0.3, "1", None)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("magic:steps=2", "methods must be one of tcd, cm, lcm, direct_cm, ddim, euler, heun, dpmpp_2s; got 'magic'"),
        ("ddim:gamma=0.3", "methods: ddim takes steps=, w= each once; got 'gamma=0.3' in 'ddim:gamma=0.3'"),
        ("lcm:gamma=0.3", "methods: lcm takes steps=, w= each once"),
        ("tcd:steps", "methods: tcd takes steps=, gamma=, tcf=, w= each once; got 'steps'"),
        ("tcd:steps=2,steps=3", "each once; got 'steps=3'"),
        ("tcd:steps=few", "methods: steps must be of type int, got 'few' in 'tcd:steps=few'"),
        ("tcd:steps=0", "methods: steps must be at least 1, got 0"),
        ("tcd:gamma=1.5", "methods: gamma must be in [0, 1], got 1.5"),
        ("tcd:gamma=nan", "methods: gamma must be in [0, 1], got nan"),
        ("ddim:w=-1", "methods: w must be at least 0, got -1.0"),
        ("ddim:w=inf", "methods: w must be at least 0, got inf"),
        ("tcd:tcf=9", "methods: tcf must be one of 1, 2, s+; got '9'"),
        ("tcd:tcf=s+", "methods: tcf=s+ is for a LoRA that was distilled so"),
    ],
)
def test_a_bad_method_is_named(text, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        made(text)


def test_the_same_row_twice_is_refused():
    with pytest.raises(ValueError, match="methods: ddim-steps4-w0 is there twice"):
        made("ddim", "ddim:steps=4")


def test_rows_that_differ_have_folders_of_their_own():
    texts = [f"tcd:steps={n},gamma={g},tcf={f},w={w}" for n in (1, 2) for g in (0, 0.3) for f in "12" for w in (0, 1)]
    found = made(*texts, "ddim", "euler", files=[PLAIN, LCM])
    assert len({row.name for row in found}) == len({row.label for row in found}) == 2 * len(texts) + 2


def test_more_steps_than_the_grid_has_are_refused():
    with pytest.raises(ValueError, match=r"n must be in \[1, 50\]"):
        made("tcd:steps=51")[0].check(tcd.DiscreteVP.scaled_linear())


def test_the_teacher_is_as_the_options_say():
    opts = EvaluateOptions(teacher_steps=7, teacher_solver="heun", teacher_guidance=2.5)
    assert teacher_row(opts) == Row("heun", 7, 2.5)


def test_students_and_teachers_are_sampled_as_their_row_says(monkeypatch):
    def recorded(name):
        return lambda parts, conds, uncond, sizes, noise, *how: (name, *how)

    monkeypatch.setattr(rows, "student_latents", recorded("student"))
    monkeypatch.setattr(rows, "teacher_latents", recorded("teacher"))
    parts: Any = None
    uncond: Any = None
    what = (parts, [], uncond, [], torch.zeros(1), [5])
    assert Row("tcd", 2, 1.5, 0.7, "2").latents(*what) == ("student", 2, 0.7, "2", [5], 1.5)
    assert Row("heun", 3, 6.5).latents(*what) == ("teacher", 3, "heun", 6.5)


@pytest.fixture
def written(tmp_path):
    """Writes a LoRA file with this metadata, and with an embedding of s if asked for."""

    def write(name="x", hearing=False, **metadata):
        tensors = {"lora_unet_a.alpha": torch.tensor(1.0)}
        tensors |= embed.to_tensors(tcd.TargetTime(8, 4)) if hearing else {}
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path, {f"tcd.{key}": value for key, value in metadata.items()})
        return str(path)

    return write


@pytest.mark.parametrize(
    ("metadata", "gamma", "tcf"),
    [
        ({}, 0.3, "1"),
        ({"method": "tcd", "tcf": "2"}, 0.3, "2"),
        ({"method": "lcm"}, 1.0, "1"),
        ({"method": "direct_cm"}, 1.0, "1"),
        ({"method": "tcd", "gamma": "0.2"}, 0.2, "1"),
        ({"hearing": True, "tcf": "s+"}, 0.3, "s+"),
        ({"hearing": True}, 0.3, "s+"),
    ],
    ids=str,
)
def test_a_lora_says_how_it_wants_to_be_sampled(written, metadata, gamma, tcf):
    found = lora_file(written(**metadata))
    assert (found.name, found.gamma, found.tcf) == ("x", gamma, tcf)


def test_a_lora_may_be_given_a_name(written):
    assert lora_file(f"mine={written()}").name == "mine"
    assert lora_file(written("lr=1e-4")).name == "lr=1e-4"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("gone.safetensors", "network_weights 'gone.safetensors': no such LoRA file: gone.safetensors"),
        ("mine=gone.safetensors", "no such LoRA file: gone.safetensors"),
        ("a/b=gone.safetensors", "of at most 200 bytes and without a folder, got 'a/b'"),
    ],
)
def test_a_lora_that_is_not_there_is_named(given, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        lora_file(given)


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({"tcf": "9"}, "tcd.tcf must be one of 1, 2, s+; got '9'"),
        ({"tcf": "s+"}, "it is of order s+, but has no tcd_target_time. tensors"),
        ({"gamma": "much"}, "tcd.gamma in the metadata must be from 0 to 1, got 'much'"),
    ],
    ids=str,
)
def test_a_lora_whose_metadata_are_wrong_is_refused(written, metadata, wanted):
    with pytest.raises(ValueError, match=f"network_weights '.*x.safetensors': {re.escape(wanted)}"):
        lora_file(written(**metadata))


def test_two_loras_of_one_name_are_refused(written):
    with pytest.raises(ValueError, match=r"network_weights 'x' is there twice: give each a name of its own"):
        lora_files([written(), f"x={written('y')}"])
