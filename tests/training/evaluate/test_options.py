"""Options of the evaluator: read as the trainer's are, checked before any work."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from training.evaluate import EVALUATOR, EvaluateOptions
from training.options.fields import Model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def flags(tmp_path):
    """The two options that have to be there."""
    (tmp_path / "teacher.safetensors").touch()
    (tmp_path / "prompts.txt").write_text("red heart\n", encoding="utf-8")
    return [
        *("--pretrained_model_name_or_path", str(tmp_path / "teacher.safetensors")),
        *("--prompts", str(tmp_path / "prompts.txt")),
    ]


def test_flags_win_over_the_file(flags, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('methods = ["lcm:steps=2"]\nseeds = [1, 2]\nresolution = 128', encoding="utf-8")
    opts = EVALUATOR.read([*flags, "--config_file", str(config), "--seeds", "3", "4"])
    assert (opts.methods, opts.seeds, opts.size) == (("lcm:steps=2",), (3, 4), (128, 128))


def test_an_unknown_flag_suggests_the_nearest(flags, capsys):
    with pytest.raises(SystemExit):
        EVALUATOR.read([*flags, "--metric", "drift"])
    assert "unknown option 'metric'; did you mean 'metrics'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--batch_size=0"], "batch_size must be at least 1, got 0"),
        (["--max_prompts=-1"], "max_prompts must be at least 0, got -1"),
        (["--probe_prompts=-1"], "probe_prompts must be at least 0, got -1"),
        (["--sheet_prompts=0"], "sheet_prompts must be at least 1, got 0"),
        (["--teacher_steps=0"], "teacher_steps must be at least 1, got 0"),
        (["--teacher_guidance=nan"], "teacher_guidance must be at least 0, got nan"),
        (["--resolution=big"], "resolution must be a number or width,height, got 'big'"),
        (["--vae=gone"], "vae does not exist: 'gone'"),
        (["--base_weights=gone"], "base_weights does not exist: 'gone'"),
        (["--base_weights_multiplier=1"], "base_weights_multiplier must be 0 numbers"),
        (["--prompts=gone"], "prompts does not exist: 'gone'"),
        (["--train_data_dir=demo"], "one of prompts and train_data_dir must be given, got prompts and train_data_dir"),
        (["--prompts="], "one of prompts and train_data_dir must be given, got none"),
        (["--prompts=", "--train_data_dir=gone"], "train_data_dir does not exist: 'gone'"),
        (["--real_data=gone"], "real_data does not exist: 'gone'"),
        (["--methods"], "methods must have one entry at least"),
        (["--metrics"], "metrics must have one entry at least"),
        (["--seeds", "1", "1"], "seeds must differ and be at least 0, got 1 1"),
        (["--seeds", "-1"], "seeds must differ and be at least 0, got -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_is_named(flags, more, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        EVALUATOR.read([*flags, *more])


@pytest.mark.parametrize("name", ["uncond", "mixed_precision", "teacher_solver"])
def test_a_value_outside_of_the_list_is_refused(flags, name, capsys):
    with pytest.raises(SystemExit):
        EVALUATOR.read([*flags, f"--{name}=magic"])
    assert "invalid choice: 'magic'" in capsys.readouterr().err


OTHER = {str: "other", bool: True, int: 3, float: 2.5, tuple: ("other",)}


@pytest.mark.parametrize("name", [*(f.name for f in fields(Model)), "mixed_precision", "resolution", "uncond"])
def test_what_concerns_the_model_reaches_the_trainers_loader(name):
    other = OTHER[type(getattr(EvaluateOptions(), name))]
    assert getattr(EvaluateOptions(**{name: other}).model, name) == other


def test_the_command_line_ends_with_one_line_of_reason():
    command = [sys.executable, "-m", "training.evaluate", "--batch_size=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: batch_size must be at least 1, got 0"
    assert "Traceback" not in done.stderr
