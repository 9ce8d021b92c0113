"""Options of the trainer: from flags and TOML, checked before any work."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training import options
from training.options import checks

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
    assert values["network_dim"] == 6


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
        ("resolution = 512.0", "resolution must be of type str, got 512.0"),
        ("network_args = 'conv_dim=1'", "network_args must be of type list of str, got 'conv_dim=1'"),
        ("network_args = [1]", "network_args must be of type list of str, got [1]"),
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
def test_a_number_below_the_lowest_is_refused(name, lowest):
    checks.check_numbers(dataclasses.replace(options.Options(), **{name: lowest}))
    with pytest.raises(ValueError, match=f"^{name} must be at least {lowest}, got {lowest - 1}"):
        checks.check_numbers(dataclasses.replace(options.Options(), **{name: lowest - 1}))


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_learning_rate_must_be_positive(paths, value):
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        options.read([*paths, f"--learning_rate={value}"])


def test_the_range_of_guidance_must_not_be_reversed(paths):
    with pytest.raises(ValueError, match=r"guidance_max 3\.0 is below guidance_min 4\.0"):
        options.read([*paths, "--guidance_min=4", "--guidance_max=3"])


def test_all_ends_in_closed_form_are_of_tcf_1_alone(paths):
    assert options.read([*paths, "--ends=0"]).ends == 0
    with pytest.raises(ValueError, match="ends 0, all in closed form, is for tcf 1 and l2, got tcf 2"):
        options.read([*paths, "--ends=0", "--tcf=2"])


def test_lists_come_from_flags_and_file(paths, config):
    read = options.read([*paths, *config("network_args = ['conv_dim=8', 'target=attention']")])
    assert read.network_args == ("conv_dim=8", "target=attention")
    assert options.read([*paths, "--network_args", "conv_dim=4", "exclude=x"]).network_args == (
        "conv_dim=4",
        "exclude=x",
    )


@pytest.mark.parametrize(("text", "size"), [("512", (512, 512)), ("768,512", (768, 512))])
def test_a_resolution_is_one_number_or_two(paths, config, text, size):
    assert options.read([*paths, "--resolution", text]).size == size
    assert options.read([*paths, *config("resolution = 64")]).size == (64, 64)


@pytest.mark.parametrize("text", ["0", "512x512", "512,", "-1", "a"])
def test_another_resolution_is_refused(paths, text):
    with pytest.raises(ValueError, match="resolution must be a number or width,height"):
        options.read([*paths, f"--resolution={text}"])


@pytest.mark.parametrize("name", sorted(options.REFUSED))
def test_what_breaks_distillation_is_refused_with_the_reason(config, capsys, name):
    with pytest.raises(ValueError, match=f"{name} is not for distillation: .{{10,}}"):
        options.read(config(f"{name} = 1"))
    with pytest.raises(SystemExit):
        options.read([f"--{name}", "1"])
    assert f"{name} is not for distillation" in capsys.readouterr().err


def test_an_unknown_flag_suggests_the_nearest(capsys):
    with pytest.raises(SystemExit):
        options.read(["--learning_rat=1"])
    assert "unknown option 'learning_rat'; did you mean 'learning_rate'?" in capsys.readouterr().err


OWNED = {name: f.metadata["of"] for name, f in options.FIELDS.items() if f.metadata["of"]}


def other_than(name):
    """A value that is allowed, but not the default."""
    default: Any = options.FIELDS[name].default
    choices = options.FIELDS[name].metadata["choices"]
    if choices:
        return next(choice for choice in choices if choice != default)
    return {bool: lambda: not default, str: lambda: "x", tuple: lambda: ("x=1",)}.get(
        type(default), lambda: default + 1 if type(default) is int else (default or 0.5) / 2
    )()


def in_company(condition):
    """Values with which an option that belongs to this has an effect, and with which it has none."""
    owner, equals, allowed = condition.partition("=")
    if not equals:
        return {owner: {str: "x", int: 1}[options.TYPES[owner]]}, {owner: options.FIELDS[owner].default}
    choices = options.FIELDS[owner].metadata["choices"] or ("True", "False")
    right, wrong = (next(c for c in choices if (c in allowed.split()) is wanted) for wanted in (True, False))
    kind = options.TYPES[owner]
    return {owner: right == "True" if kind is bool else right}, {owner: wrong == "True" if kind is bool else wrong}


@pytest.mark.parametrize(("name", "of"), OWNED.items())
def test_an_option_that_would_have_no_effect_is_refused(name, of):
    pairs = [in_company(condition) for condition in of.split("|")]
    none = {key: value for _, wrong in pairs for key, value in wrong.items()}
    chosen = dataclasses.replace(options.Options(), **({"train_data_dir": "x"} | none | {name: other_than(name)}))
    with pytest.raises(ValueError, match=f"^{name} has no effect without "):
        checks.check_company(chosen)
    for right, _ in pairs:
        others = {other: options.FIELDS[other].default for other in OWNED if other not in {name, *right}}
        with_right = dataclasses.replace(chosen, **others | right)
        owners = [condition for other in right if (condition := OWNED.get(other))]
        for condition in owners:  # whose owner has one itself
            with_right = dataclasses.replace(with_right, **in_company(condition.split("|")[0])[0])
        checks.check_company(with_right)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--random_crop"], "random_crop cuts anew at every step: it needs --no-cache_latents"),
        (["--cache_latents_to_disk", "--no-cache_latents"], "cache_latents_to_disk keeps what cache_latents caches"),
        (["--torch_compile", "--gradient_checkpointing"], "torch_compile chooses itself what to compute again"),
        (["--shuffle_caption"], "shuffle_caption changes captions at every step"),
        (["--caption_tag_dropout_rate=.1"], "caption_tag_dropout_rate changes captions at every step"),
        (["--dim_from_weights"], "dim_from_weights needs network_weights"),
        (["--dim_from_weights", "--network_weights=x", "--network_dim=8"], "dim_from_weights takes rank and alpha"),
        (["--sample_every_n_steps=1"], "sample_every_n_steps has no effect without sample_prompts"),
        (["--min_timestep=5", "--max_timestep=5"], "max_timestep 5 is not above min_timestep 5"),
        (["--base_weights_multiplier", "1"], "base_weights_multiplier must be 0 numbers"),
        (["--enable_bucket", "--min_bucket_reso=512", "--max_bucket_reso=256"], "max_bucket_reso 256 is below"),
        (["--ends=0", "--loss_type=huber"], "ends 0, all in closed form, is for tcf 1 and l2, got tcf 1 and huber"),
        (["--network_dropout=1.5"], "network_dropout must be in [0, 1], got 1.5"),
        (["--ema_decay=1"], "ema_decay must be in [0, 1), got 1.0"),
        (["--sample_steps=4;8"], "sample_steps must be numbers with commas"),
        (["--vae=nowhere.safetensors"], "vae does not exist: 'nowhere.safetensors'"),
        (["--base_weights", "nowhere"], "base_weights does not exist: 'nowhere'"),
    ],
)
def test_options_that_exclude_each_other_are_named(paths, flags, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        options.read([*paths, *flags])


def test_the_data_come_from_one_place(paths, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat")
    with pytest.raises(ValueError, match=r"one of .* must be given, got train_data_dir and prompts"):
        options.read([*paths, "--prompts", str(tmp_path / "prompts.txt")])
    with pytest.raises(ValueError, match="one of train_data_dir, dataset_config, prompts must be given, got none"):
        options.read(paths[:2])


def test_the_resolved_configuration_reads_back(paths, config):
    read = options.read([*paths, "--network_args", 'exclude=a"b', "--learning_rate=3e-5", "--flip_aug"])
    assert options.read(config(options.to_toml(read))) == read


@pytest.mark.parametrize("preset", sorted((ROOT / "training" / "presets").glob("*.toml")), ids=lambda path: path.stem)
def test_a_preset_is_valid(paths, preset):
    read = options.read([*paths, "--config_file", str(preset)])
    text = preset.read_text(encoding="utf-8")
    assert "Expected:" in text
    assert "Cost:" in text
    assert read.mixed_precision == "bf16"


def test_a_choice_outside_of_the_list_is_refused_as_a_flag(paths, capsys):
    with pytest.raises(SystemExit):
        options.read([*paths, "--solver=magic"])
    assert "invalid choice: 'magic'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pretrained_model_name_or_path", "train_data_dir"])
def test_a_path_that_does_not_exist_is_named(paths, name):
    with pytest.raises(ValueError, match=f"^{name} does not exist: 'nowhere'"):
        options.read([*paths, f"--{name}=nowhere"])


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


def test_the_table_of_the_docs_is_that_of_the_code():
    from training.options.__main__ import PAGE, with_table

    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m training.options"
