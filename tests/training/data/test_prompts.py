"""Prompts instead of pictures: the teacher makes each latent once, whatever interrupts it."""

import sys
from types import SimpleNamespace

import pytest
import torch
from dataset_files import DOWN, Fake, opts_of
from torch import nn

from training import data
from training.data import prompts


class Teacher(Fake):
    """Its latents are its noise and the first number of the condition."""

    def __init__(self, patch):
        super().__init__(patch)
        self.made: list[int] = []
        self.refuses = -1.0  # a condition of which it has no finite latent
        self.stops = 99  # after so many batches
        self.parts = SimpleNamespace(place=lambda device: None)
        fake = SimpleNamespace(initial_noise=self.initial_noise, teacher_latents=self.teacher_latents)
        patch.setitem(sys.modules, "training.sampling", fake)
        patch.setattr("training.sampling", fake, raising=False)

    def initial_noise(self, models, size, seed):
        shape = (1, 4, size[1] // DOWN, size[0] // DOWN)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def teacher_latents(self, parts, conds, uncond, sizes, noise, steps, solver, w):
        assert parts is self.parts
        assert (steps, solver, w) == (25, "dpmpp_2s", 6.5)
        assert sizes == [(96, 64, 0, 0, 96, 64)] * len(conds)
        if len(self.made) == self.stops:
            raise KeyboardInterrupt
        firsts = torch.stack([cond.cross[0, 0, 0] for cond in conds])
        if self.refuses in firsts:
            raise ValueError("not finite")
        self.made.append(len(conds))
        return noise + firsts.reshape(-1, 1, 1, 1)


@pytest.fixture
def teacher(monkeypatch):
    return Teacher(monkeypatch)


def opts(folder, text="# all\n\na\n b \nc\n", **named):
    (folder / "prompts.txt").write_text(text, encoding="utf-8")
    return opts_of(folder, prompts=folder / "prompts.txt", resolution="96,64", **named)


def load(teacher, made):
    return data.load(teacher.models, made, teacher.parts)


def test_lines_are_prompts_unless_empty_or_a_comment(tmp_path):
    found = data.survey(opts(tmp_path, latents_per_prompt=2))
    assert [sample.caption for sample in found.samples] == ["a", "a", "b", "b", "c", "c"]
    assert found.lines()[0] == "data: 6 samples, 6 in an epoch"


def test_each_prompt_gets_its_latents_from_noises_of_their_own(tmp_path, teacher):
    dataset = load(teacher, opts(tmp_path, latents_per_prompt=2, train_batch_size=4))
    assert teacher.made == [4, 2]
    batch = dataset.batch(0, 6, slice(None))
    assert batch.latents.shape == (6, 4, 8, 12)
    assert len({latent.sum().item() for latent in batch.latents}) == 6
    for latent, cond in zip(batch.latents, batch.conds, strict=True):
        assert latent.mean().item() == pytest.approx(cond.cross[0, 0, 0].item(), abs=0.3)
    assert teacher.made == [4, 2]


def test_a_prompt_that_is_there_twice_gets_another_latent(tmp_path, teacher):
    batch = load(teacher, opts(tmp_path, "a\na")).batch(0, 2, slice(None))
    assert not torch.equal(*batch.latents)


def test_what_is_made_stays_for_the_next_run_in_any_order(tmp_path, teacher):
    load(teacher, opts(tmp_path))
    load(teacher, opts(tmp_path, "c\nnew\na\nb"))
    assert teacher.made == [1, 1, 1, 1]


def test_an_interrupted_making_goes_on(tmp_path, teacher):
    teacher.stops = 2
    with pytest.raises(KeyboardInterrupt):
        load(teacher, opts(tmp_path))
    teacher.stops = 99
    load(teacher, opts(tmp_path))
    assert teacher.made == [1, 1, 1]


@pytest.mark.parametrize("change", ["weights", "text encoder", {"seed": 1}, {"uncond": "zeros"}], ids=str)
def test_what_changes_the_teacher_makes_new_latents(tmp_path, teacher, change):
    load(teacher, opts(tmp_path))
    if change == "weights":
        nn.init.ones_(teacher.models.unet.weight)
    if change == "text encoder":
        nn.init.ones_(teacher.models.clip.cond_stage_model.weight)
    load(teacher, opts(tmp_path, **(change if isinstance(change, dict) else {})))
    assert len(teacher.made) == 6


def test_every_setting_of_the_teacher_is_in_the_key(tmp_path, teacher):
    values = {"teacher_steps": 3, "teacher_solver": "ddim", "teacher_guidance": 1.0, "discrete_flow_shift": 2.0}
    keys = {prompts.teacher_key(teacher.models, opts(tmp_path, **{name: value})) for name, value in values.items()}
    assert len(keys | {prompts.teacher_key(teacher.models, opts(tmp_path))}) == 5


def test_a_latent_that_is_not_finite_names_its_prompt(tmp_path, teacher):
    teacher.refuses = float(ord("b"))
    with pytest.raises(ValueError, match=r"1 of 3 cannot be used:\n  prompt 'b' \(1\) has no latent: not finite"):
        load(teacher, opts(tmp_path, train_batch_size=3))


def test_a_latent_that_is_not_finite_may_be_skipped(tmp_path, teacher, caplog):
    teacher.refuses = float(ord("b"))
    dataset = load(teacher, opts(tmp_path, train_batch_size=3, bad_data="skip"))
    assert [sample.caption for sample in dataset.samples] == ["a", "c"]
    assert teacher.made == [1, 1]
    assert "prompt 'b' (1)" in caplog.text


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_a_file_without_prompts_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"no prompts in .*prompts\.txt"):
        data.survey(opts(tmp_path, text))


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    made = opts(tmp_path)
    (tmp_path / "prompts.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"prompts .*prompts\.txt cannot be read as UTF-8"):
        data.survey(made)


def test_without_the_parts_there_is_no_teacher(tmp_path, teacher):
    with pytest.raises(ValueError, match="prompts need the parts of the model"):
        data.load(teacher.models, opts(tmp_path))
