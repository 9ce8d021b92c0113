"""Tuning the tiny model: a few steps on two pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dataset_files import add
from short_runs import content

from demo.reproduce import finetune
from demo.reproduce.finetune import CHECKPOINT, RECIPE, Tuning, tune
from demo.train_tiny import velocity_weight
from tcd import lora
from training import host
from training.draws import generator
from training.evaluate.loras import loaded, lora_file
from training.options import Options
from training.save import PREFIX, part

SIZE = (128, 128)
OPTIONS = Options(pretrained_model_name_or_path=str(CHECKPOINT), checkpoint_loader="demo.tiny:load", resolution="128")


@pytest.fixture
def whole(tmp_path: Path) -> Tuning:
    """Two steps of all weights on two pictures."""
    add(tmp_path / "data" / "1_hearts", "red.png", "red heart", SIZE, "red")
    add(tmp_path / "data" / "1_hearts", "blue.png", "blue heart", SIZE, "blue")
    return Tuning(tmp_path / "made" / "tuned.safetensors", tmp_path / "data", 2, 2, 1e-3)


@pytest.fixture
def style(whole: Tuning) -> Tuning:
    """The same as a LoRA."""
    return replace(whole, file=whole.file.with_name("style.safetensors"), rank=2)


def never(*_: object) -> None:
    raise AssertionError("it was trained again")


def more_pictures(tuning: Tuning) -> Tuning:
    add(tuning.pictures / "1_hearts", "green.png", "green heart", SIZE, "green")
    return tuning


def another_picture(tuning: Tuning) -> Tuning:
    add(tuning.pictures / "1_hearts", "red.png", None, SIZE, "pink")
    return tuning


def another_caption(tuning: Tuning) -> Tuning:
    (tuning.pictures / "1_hearts" / "red.txt").write_text("ruby heart\n", encoding="utf-8")
    return tuning


CHANGES = [
    more_pictures,
    another_picture,
    another_caption,
    lambda tuning: replace(tuning, steps=3),
    lambda tuning: replace(tuning, batch=3),
    lambda tuning: replace(tuning, peak=2e-3),
    lambda tuning: replace(tuning, rank=4),
]
NAMES = ["more pictures", "picture", "caption", "steps", "batch", "peak", "rank"]


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_whatever_it_follows_from_is_part_of_the_recipe(whole: Tuning, change):
    before = whole.recipe
    assert replace(whole, file=Path("elsewhere")).recipe == before
    assert change(whole).recipe != before


def test_what_is_missing_or_broken_or_of_others_is_not_done(whole: Tuning):
    assert not whole.done()
    whole.file.parent.mkdir()
    whole.file.write_text("half of it")
    assert not whole.done()
    assert not replace(whole, file=CHECKPOINT).done()


@pytest.mark.host
@pytest.mark.slow
def test_a_tuned_checkpoint_differs_in_the_unet_alone(whole: Tuning):
    host.start()
    from demo import tiny

    (before, said), (after, says) = tiny.read(CHECKPOINT), tiny.read(tune(whole))
    assert after.keys() == before.keys()
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {n: (t.dtype, t.shape) for n, t in before.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith(PREFIX) for name in changed)
    assert len(changed) > 0.9 * len(part(before, PREFIX))
    assert says == {**said, RECIPE: whole.recipe}
    unet = host.load(whole.file, "demo.tiny:load").unet.state_dict()
    assert all(torch.equal(unet[name], tensor.float()) for name, tensor in part(after, PREFIX).items())


@pytest.mark.host
@pytest.mark.slow
def test_a_style_lora_is_read_put_on_the_network_and_merged_as_any_other(style: Tuning):
    tensors, says = lora.read(tune(style))
    assert all(name.startswith("lora_unet_") for name in tensors)
    assert says[RECIPE] == style.recipe
    assert any(t.abs().max() > 0 for name, t in tensors.items() if name.endswith("lora_up.weight"))
    models = host.load_teacher(OPTIONS)
    plain = {name: weight.clone() for name, weight in models.unet.state_dict().items()}
    with loaded(models, OPTIONS, lora_file(str(style.file))) as parts:
        assert parts.adapter is not None
        deltas = {parts.adapter.names[key]: path.delta() for key, path in parts.adapter.paths.items()}
    merged = host.load_teacher(replace(OPTIONS, base_weights=(str(style.file),))).unet.state_dict()
    assert all(torch.allclose(merged[f"{n}.weight"], plain[f"{n}.weight"] + delta) for n, delta in deltas.items())
    assert any(not torch.equal(merged[name], plain[name]) for name in plain)


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "style"])
def test_what_is_there_is_not_trained_again_and_another_recipe_is(kind: str, request, monkeypatch: pytest.MonkeyPatch):
    tuning = request.getfixturevalue(kind)
    tune(tuning)
    made = content(tuning.file)
    with monkeypatch.context() as patch:
        patch.setattr(host, "load", never)
        assert tune(tuning) == tuning.file
    longer = replace(tuning, steps=3)
    tune(longer)
    assert longer.done()
    assert not tuning.done()
    assert content(tuning.file) != made
    tuning.file.unlink()
    tune(tuning)
    assert content(tuning.file) == made


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.parametrize(("rank", "peak"), [(0, 1e-3), (8, 5e-3)])
def test_the_loss_falls(whole: Tuning, rank: int, peak: float):
    tuning = replace(whole, steps=16, batch=4, peak=peak, rank=rank)
    models = host.load(CHECKPOINT, "demo.tiny:load")
    dataset = finetune.dataset_of(models, tuning)
    torch.manual_seed(0)
    learning = lora.inject(models.unet, rank) if rank else models.unet.requires_grad_(True)

    def error() -> float:
        net, weight = host.Network(models), velocity_weight(models.sched)
        with torch.no_grad():
            losses = [finetune.loss_of(net, dataset.batch(i, 8, slice(None)), weight, generator(i)) for i in range(4)]
        return torch.stack(losses).mean().item()

    before = error()
    finetune.fit(models, dataset, list(learning.parameters()), tuning)
    assert error() < 0.5 * before


@pytest.mark.host
@pytest.mark.slow
def test_a_tenth_of_the_samples_has_no_caption(whole: Tuning):
    dataset = finetune.dataset_of(host.load(CHECKPOINT, "demo.tiny:load"), whole)
    conds = [cond for number in range(50) for cond in dataset.batch(number, 8, slice(None)).conds]
    empty = sum(torch.equal(cond.cross, dataset.uncond.cross) for cond in conds)
    assert 0.05 < empty / len(conds) < 0.15
