"""Distillation without any pictures: the teacher makes the latents, once."""

import pytest
from short_runs import content, options_of

from training import train

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture
def made(tmp_path):
    """Options with a file of prompts instead of pictures."""
    (tmp_path / "prompts.txt").write_text("a red heart\n# a comment\n\na blue heart\n", encoding="utf-8")

    def options(name="output", **named):
        prompts = {"train_data_dir": "", "prompts": str(tmp_path / "prompts.txt"), "teacher_steps": 2}
        return options_of(tmp_path, tmp_path / name, **(prompts | named))

    return options


def test_a_lora_is_trained_from_prompts_alone(made, capsys):
    path = train.train(made(latents_per_prompt=2))
    assert any(any(tensor) for tensor in content(path)[0].values())
    assert "data: 4 samples, 4 in an epoch" in capsys.readouterr().out


def test_the_latents_are_made_once(made, monkeypatch):
    from training import sampling

    first = train.train(made())
    monkeypatch.setattr(sampling, "teacher_latents", lambda *_: pytest.fail("they were made again"))
    assert content(train.train(made()))[0] == content(first)[0]


@pytest.mark.parametrize(
    "other", [{"teacher_guidance": 1.0}, {"teacher_solver": "ddim"}, {"teacher_steps": 3}], ids=str
)
def test_another_teacher_makes_other_latents(made, other):
    assert content(train.train(made("a")))[0] != content(train.train(made("b", **other)))[0]


def test_every_family_can_do_without_pictures(made):
    path = train.train(made(checkpoint_loader="small_models:sd3"))
    assert content(path)[1]["ss_base_model_version"] == "sd3"
