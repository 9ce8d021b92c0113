"""Prompts, their noise, and picture files that are made once."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from training.evaluate import EvaluateOptions, pictures
from training.evaluate.loras import LoraFile
from training.evaluate.pictures import Folder, Pictures, key_of
from training.evaluate.prompts import Prompt, prompts_of, texts_of
from training.evaluate.rows import Row

ROW = Row("tcd", 2, 0.0, 0.3, "1")


@pytest.fixture
def opts(tmp_path):
    for name in ("teacher", "base", "vae"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    lines = "".join(f"prompt {i}\n" for i in range(5))
    (tmp_path / "prompts.txt").write_text(lines, encoding="utf-8")
    return EvaluateOptions(
        pretrained_model_name_or_path=str(tmp_path / "teacher"),
        prompts=str(tmp_path / "prompts.txt"),
        output_dir=str(tmp_path / "out"),
        resolution="8",
    )


def test_prompts_are_spread_evenly_over_the_list(opts):
    assert texts_of(replace(opts, max_prompts=3)) == ["prompt 0", "prompt 2", "prompt 4"]
    assert texts_of(replace(opts, max_prompts=9)) == texts_of(opts) == [f"prompt {i}" for i in range(5)]


def test_captions_of_folders_are_taken_once_each(opts, tmp_path):
    folder = tmp_path / "data" / "2_x"
    folder.mkdir(parents=True)
    for name, caption in {"a": "red heart", "b": "blue whale", "c": "red heart"}.items():
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
        (folder / f"{name}.caption").write_text(caption, encoding="utf-8")
    of_folder = replace(opts, prompts="", train_data_dir=str(tmp_path / "data"), caption_extension=".caption")
    assert texts_of(of_folder) == ["red heart", "blue whale"]
    with pytest.raises(ValueError, match=r"a\.png has no caption: a\.txt is missing"):
        texts_of(replace(of_folder, caption_extension=".txt"))


def test_every_prompt_and_seed_has_noise_of_its_own():
    found = [prompt for seed in (0, 1) for prompt in prompts_of(["same", "same"], seed, 2 * seed)]
    assert [prompt.index for prompt in found] == [0, 1, 2, 3]
    assert len({prompt.seed for prompt in found}) == 4
    assert prompts_of(["same", "other"], 1, 0)[1].seed == found[3].seed  # whatever is asked for besides


OTHERS = {
    "pretrained_model_name_or_path": "base",
    "vae": "vae",
    "base_weights": "base",
    "checkpoint_loader": "a:b",
    "clip_skip": 2,
    "mixed_precision": "bf16",
    "resolution": "16",
    "uncond": "zeros",
    "v_parameterization": True,
    "zero_terminal_snr": True,
    "discrete_flow_shift": 2.0,
    "guidance_scale": 4.0,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_picture_of_another_model_has_another_key(opts, tmp_path, name):
    value = str(tmp_path / OTHERS[name]) if OTHERS[name] in ("base", "vae") else OTHERS[name]
    other = replace(opts, **{name: (value,) if name == "base_weights" else value})
    prompt = Prompt(0, "red heart", 5)
    assert key_of(other, ROW, prompt) != key_of(opts, ROW, prompt)


def test_a_key_hangs_on_row_prompt_and_noise_and_on_the_content_of_files(opts, tmp_path):
    loras = [LoraFile(name, tmp_path / name, 0.3, "1") for name in ("base", "vae")]
    others = {"w": 1.0, "steps": 3, "gamma": 0.4, "tcf": "2", "method": "cm"}
    rows = [
        ROW,
        *(replace(ROW, **{name: value}) for name, value in others.items()),
        *(replace(ROW, lora=x) for x in loras),
    ]
    prompts = [Prompt(0, "a", 5), Prompt(0, "b", 5), Prompt(0, "a", 6)]
    keys = {key_of(opts, row, prompt) for row in rows for prompt in prompts}
    assert len(keys) == len(rows) * len(prompts)
    (tmp_path / "copy").write_bytes((tmp_path / "base").read_bytes())
    copy = replace(ROW, lora=LoraFile("copy", tmp_path / "copy", 0.3, "1"))
    assert key_of(opts, copy, prompts[0]) == key_of(opts, replace(ROW, lora=loras[0]), prompts[0])
    before = key_of(opts, copy, prompts[0])
    (tmp_path / "copy").write_text("trained again", encoding="utf-8")
    assert key_of(opts, copy, prompts[0]) != before
    unrelated = replace(opts, metrics=("drift",), batch_size=7, output_dir="elsewhere", teacher_steps=2)
    assert key_of(unrelated, ROW, prompts[0]) == key_of(opts, ROW, prompts[0])


class Sampler:
    """Stands for the network: every picture is grey, and each sample costs three evaluations."""

    def __init__(self, monkeypatch):
        self.batches, self.net, self.models = [], SimpleNamespace(evaluated=0), None
        monkeypatch.setattr(Row, "latents", self.latents)
        monkeypatch.setattr(pictures.host, "decode_latents", lambda models, latents: latents)

    def of(self, prompts):
        return [], None, []

    def noise(self, prompts):
        return torch.full((len(prompts), 8, 8, 3), 0.5)

    def latents(self, parts, conds, uncond, sizes, noise, seeds):
        self.batches.append(seeds)
        self.net.evaluated += 3 * len(seeds)
        return noise


@pytest.fixture
def sampler(monkeypatch):
    return Sampler(monkeypatch)


def test_pictures_are_sampled_in_batches_and_counted(opts, sampler):
    prompts = prompts_of(texts_of(opts), 0, 0)
    folder = Folder(replace(opts, batch_size=2), ROW)
    folder.make(sampler, sampler, prompts)
    assert sampler.batches == [[p.seed for p in prompts[i : i + 2]] for i in (0, 2, 4)]
    assert [path.name for path in folder.pictures(prompts).paths] == [f"{i:05d}.png" for i in range(5)]
    assert folder.evaluations(prompts[4]) == 3


def test_only_what_is_missing_is_sampled_again(opts, sampler):
    prompts, folder = prompts_of(texts_of(opts), 0, 0), Folder(opts, ROW)
    folder.make(sampler, sampler, prompts[:3])
    folder.file(prompts[1]).write_bytes(folder.file(prompts[1]).read_bytes()[:20])  # an accident
    Image.new("RGB", (8, 8)).save(folder.file(prompts[2]))  # somebody else's
    assert folder.missing(prompts) == prompts[1:]
    sampler.batches.clear()
    folder.make(sampler, sampler, prompts)
    assert sampler.batches == [[prompt.seed] for prompt in prompts[1:]]
    assert folder.missing(prompts) == []
    assert folder.missing([replace(prompts[0], text="other")]) != []


def test_a_run_that_is_interrupted_leaves_whole_pictures_alone(opts, sampler, monkeypatch):
    prompts, folder = prompts_of(texts_of(opts), 0, 0), Folder(opts, ROW)

    def broken(*args, **named):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", broken)
        with pytest.raises(OSError, match="disk full"):
            folder.make(sampler, sampler, prompts)
    assert list(folder.path.iterdir()) == []


def test_pictures_of_any_size_and_kind_are_read_in_one_size(tmp_path):
    Image.new("L", (40, 20), 255).save(tmp_path / "a.png")
    Image.new("RGBA", (7, 30), (255, 0, 0, 255)).save(tmp_path / "b.png")
    found = Pictures((tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.png"), (16, 8), batch=2)
    for _ in range(2):  # as often as they are wanted
        assert [tuple(batch.shape) for batch in found] == [(2, 8, 16, 3), (1, 8, 16, 3)]
    assert torch.equal(next(iter(found))[1, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_real_pictures_are_looked_into_before_anything_is_sampled(opts, tmp_path):
    folder = tmp_path / "real"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    with pytest.raises(
        ValueError, match=re.escape(f"real_data must be a folder of two pictures at least, got '{folder}'")
    ):
        pictures.real(replace(opts, real_data=str(folder)))
    Image.new("RGB", (8, 8)).save(folder / "more" / "b.png")
    assert len(pictures.real(replace(opts, real_data=str(folder))).paths) == 2
    (folder / "c.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"c\.png is not a readable picture"):
        pictures.real(replace(opts, real_data=str(folder)))
