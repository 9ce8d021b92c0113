"""Options of the trainer: from flags and TOML, checked before any work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from training import options

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path):
    """The two options that have to exist, as flags."""
    (tmp_path / "teacher.safetensors").touch()
    return [
        *("--pretrained_model_name_or_path", str(tmp_path / "teacher.safetensors")),
        *("--train_data_dir", str(tmp_path)),
    ]


@pytest.fixture
def config(tmp_path):
    """Writes a TOML file."""

    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return ["--config_file", str(path)]

    return write


def test_defaults_come_from_the_fields(paths):
    read = options.read(paths)
    assert (read.train_batch_size, read.learning_rate, read.tcf) == (1, 1e-4, "1")


def test_flags_win_over_the_file(paths, config):
    read = options.read([*paths, *config("max_train_steps = 7\nnetwork_dim = 3"), "--max_train_steps", "9"])
    assert (read.max_train_steps, read.network_dim) == (9, 3)


@pytest.mark.parametrize(("flags", "wanted"), [([], True), (["--no-save_state"], False), (["--save_state"], True)])
def test_a_switch_can_be_turned_off_again(paths, config, flags, wanted):
    assert options.read([*paths, *config("save_state = true"), *flags]).save_state is wanted


def test_a_whole_number_does_for_a_fraction(paths, config):
    assert options.read([*paths, *config("learning_rate = 1")]).learning_rate == 1


def test_the_shipped_configuration_is_valid():
    values = options.from_toml(ROOT / "demo" / "tcd.toml")
    assert values["checkpoint_loader"] == "demo.tiny:load"
    assert values["network_dim"] == 16


@pytest.mark.parametrize(
    ("typed", "meant"), [("learning_rat", "learning_rate"), ("network_dims", "network_dim"), ("Seed", "seed")]
)
def test_an_unknown_name_suggests_the_nearest(config, typed, meant):
    with pytest.raises(ValueError, match=rf"config\.toml: unknown option '{typed}'; did you mean '{meant}'\?"):
        options.read(config(f"{typed} = 1"))


def test_a_name_like_no_other_is_only_refused(config):
    with pytest.raises(ValueError, match=r"unknown option 'xyzzy'$"):
        options.read(config("xyzzy = 1"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("max_train_steps = 'ten'", "max_train_steps must be of type int, got 'ten'"),
        ("max_train_steps = 1.5", "max_train_steps must be of type int, got 1.5"),
        ("max_train_steps = true", "max_train_steps must be of type int, got True"),
        ("learning_rate = '1e-4'", "learning_rate must be of type float, got '1e-4'"),
        ("save_state = 1", "save_state must be of type bool, got 1"),
        ("tcf = 1", "tcf must be of type str, got 1"),
        ("[network]\ndim = 1", "unknown option 'network'"),
    ],
)
def test_a_value_of_another_type_is_refused(config, line, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        options.read(config(line))


def test_a_file_that_is_no_toml_is_named(config):
    with pytest.raises(ValueError, match=r"config\.toml is not valid TOML"):
        options.read(config("seed = = 1"))


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"config\.toml is not valid TOML"):
        options.read(["--config_file", str(tmp_path / "config.toml")])


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"no such config_file: nowhere\.toml"):
        options.read(["--config_file", "nowhere.toml"])


@pytest.mark.parametrize(("name", "lowest"), options.AT_LEAST.items())
def test_a_number_below_the_lowest_is_refused(paths, name, lowest):
    assert options.read([*paths, f"--{name}={lowest}"])
    with pytest.raises(ValueError, match=f"^{name} must be at least {lowest}, got {lowest - 1}"):
        options.read([*paths, f"--{name}={lowest - 1}"])


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_learning_rate_must_be_positive(paths, value):
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        options.read([*paths, f"--learning_rate={value}"])


def test_the_range_of_guidance_must_not_be_reversed(paths):
    with pytest.raises(ValueError, match=r"guidance_max 3\.0 is below guidance_min 4\.0"):
        options.read([*paths, "--guidance_min=4", "--guidance_max=3"])


def test_all_ends_in_closed_form_are_of_tcf_1_alone(paths):
    assert options.read([*paths, "--ends=0"]).ends == 0
    with pytest.raises(ValueError, match="ends 0, all in closed form, is for tcf 1, got tcf 2"):
        options.read([*paths, "--ends=0", "--tcf=2"])


def test_a_choice_outside_of_the_list_is_refused_as_a_flag(paths, capsys):
    with pytest.raises(SystemExit):
        options.read([*paths, "--solver=magic"])
    assert "invalid choice: 'magic'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pretrained_model_name_or_path", "train_data_dir"])
@pytest.mark.parametrize("value", ["", "nowhere"])
def test_a_path_that_does_not_exist_is_named(paths, name, value):
    with pytest.raises(ValueError, match=f"^{name} does not exist: '{value}'"):
        options.read([*paths, f"--{name}={value}"])


def test_a_state_that_does_not_exist_is_named(paths):
    assert options.read([*paths, "--resume=auto"]).resume == "auto"
    with pytest.raises(ValueError, match=r"resume must be `auto` or a state file, got 'gone\.pt'"):
        options.read([*paths, "--resume=gone.pt"])


def test_the_command_line_ends_with_one_line_of_reason():
    done = subprocess.run(
        [sys.executable, "-m", "training.train", "--max_train_steps=0"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: max_train_steps must be at least 1, got 0"
    assert "Traceback" not in done.stderr
