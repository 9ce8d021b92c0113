"""The trainer's and the evaluator's options and the dataset TOML, with values of every type in every place."""

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzz.mutations import damaged, seeds
from fuzz.rule import refused_or_right
from PIL import Image

from training import options
from training.data import config
from training.data.sources import Subset
from training.evaluate import EVALUATOR, rows
from training.evaluate.loras import lora_files
from training.options import FIELDS
from training.options.command_line import TRAINER, Program

pytestmark = pytest.mark.slow

# Values as TOML has them: of every type, at limits and beyond.
TEXTS = (
    '""',
    '"x"',
    '"1"',
    '"nan"',
    '"512"',
    '"64,64"',
    '"a=1"',
    '".txt"',
    '"\\u0000"',
    '"\\u007f\\U0001f600"',
    "'''\n'''",
)
NUMBERS = ("0", "1", "-1", "8", "64", "512", "1000", "99999999", "1" + "0" * 30, "1" + "0" * 400, "9" * 5000, "0x10")
FRACTIONS = ("0.0", "0.5", "1.0", "-0.0", "1e-320", "1e999", "nan", "inf", "-inf", "1.5")
OTHERS = (
    "true",
    "false",
    "1979-05-27",
    "07:32:00",
    "[]",
    "[1, 2]",
    '["a=1"]',
    "[nan]",
    "[[1]]",
    "{}",
    "{a = 1}",
    "1_000",
)
BROKEN = ("", "=", "[" * 3000, '"', "01", "truE", "{a = 1", "'\x00'")
VALUES = (*TEXTS, *NUMBERS, *FRACTIONS, *OTHERS)


def value_of(default: Any, choices: tuple[str, ...] | None, chance: Random) -> str:
    """Mostly one of the right type, so that the checks behind are reached too."""
    if choices and chance.random() < 0.7:
        return f'"{chance.choice(choices)}"'
    by_type = {bool: ("true", "false"), str: TEXTS, int: NUMBERS, float: (*FRACTIONS, *NUMBERS), tuple: OTHERS[4:8]}
    return chance.choice(by_type[type(default)] if chance.random() < 0.7 else (*VALUES, *BROKEN))


def toml_of(fixed: Mapping[str, str], program: Program, chance: Random) -> bytes:
    """A configuration file: the `fixed` lines, some odd ones, sometimes damaged."""
    lines = [f'{name} = "{value}"' for name, value in fixed.items()]
    for name in chance.sample(sorted(program.fields.keys() - fixed.keys()), chance.choice((0, 1, 1, 2, 3))):
        field = program.fields[name]
        lines.append(f"{name} = {value_of(field.default, field.metadata['choices'], chance)}")
    if chance.random() < 0.1:
        lines.append(chance.choice(("x = 1", "[a]", "= 1", "seed = 0\nseed = 1", "Seed = 1", "noise_offset = 0.1")))
    content = chance.choice((b"", b"\xef\xbb\xbf")) + "\n".join(lines).encode()
    return damaged(content, chance) if chance.random() < 0.2 else content


def check_finite(options: Any) -> None:
    numbers = [item for value in vars(options).values() for item in (value if isinstance(value, tuple) else (value,))]
    assert all(math.isfinite(number) for number in numbers if isinstance(number, float))


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """The two options that have to exist."""
    (tmp_path / "teacher.safetensors").touch()
    data = tmp_path / "data"
    (data / "1_a").mkdir(parents=True)
    return {"pretrained_model_name_or_path": str(tmp_path / "teacher.safetensors"), "train_data_dir": str(data)}


def check_options(found: options.Options, again: Path) -> None:
    """All numbers are finite, and what a run writes down of them gives the same again."""
    check_finite(found)
    again.write_text(options.to_toml(found), encoding="utf-8")
    assert options.Options(**options.from_toml(again)) == found


def test_a_configuration_is_taken_as_it_is_or_refused(tmp_path, files):
    path = tmp_path / "config.toml"
    for chance in seeds("configuration", 2500):
        path.write_bytes(toml_of(files, TRAINER, chance))
        refused_or_right(
            "configuration",
            lambda: options.read(["--config_file", str(path)]),
            lambda found: check_options(found, tmp_path / "again.toml"),
            values=[str(path), *FIELDS],
        )


def test_the_evaluators_options_are_taken_as_they_are_or_refused(tmp_path, files):
    path = tmp_path / "config.toml"

    def read() -> list[rows.Row]:
        opts = EVALUATOR.read(["--config_file", str(path)])
        check_finite(opts)
        return rows.rows_of(opts, lora_files(opts.network_weights))

    for chance in seeds("evaluation", 1500):
        path.write_bytes(toml_of(files, EVALUATOR, chance))
        refused_or_right(
            "evaluator's configuration", read, lambda found: found[0].name, values=[str(path), *EVALUATOR.fields]
        )


KEYS = sorted({key for keys in config.KEYS.values() for key in keys} | {"batch_size", "x", "resolution "})


def settings_of(table: str, chance: Random) -> list[str]:
    """Lines of one table of a dataset TOML, mostly of keys that belong there."""
    lines = []
    known = sorted(set(config.KEYS[table]) - {"subsets", "image_dir"})
    for key in chance.sample(known if chance.random() < 0.8 else KEYS, chance.choice((0, 0, 0, 0, 1, 2))):
        default: Any = FIELDS[key].default if key in FIELDS else config.OWN.get(key, str)()
        lines.append(f"{key} = {value_of(default, None, chance)}")
    return lines


def dataset_of(folder: Path, chance: Random) -> bytes:
    lines = ["[general]", *settings_of("[general]", chance)] if chance.random() < 0.5 else []
    for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 2))):
        lines += ["[[datasets]]", *settings_of("[[datasets]]", chance)]
        for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 2))):
            place = chance.choice((f'"{folder}"',) * 16 + ('""', '"nowhere"', "5", '"' + "a" * 5000 + '"'))
            lines += ["[[datasets.subsets]]", f"image_dir = {place}", *settings_of("[[datasets.subsets]]", chance)]
    content = "\n".join(lines).encode()
    return damaged(content, chance) if chance.random() < 0.2 else content


def check_subsets(found: list[Subset], folder: Path) -> None:
    assert found
    for subset in found:
        assert subset.folder == folder
        assert subset.repeats >= 1
        check_finite(subset.opts)
        assert subset.opts.caption_separator
        assert [path.name for path in subset.pictures()] == ["a.png"]


def test_a_dataset_is_taken_as_it_is_or_refused(tmp_path):
    path, folder = tmp_path / "dataset.toml", tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    for chance in seeds("dataset", 2500):
        path.write_bytes(dataset_of(folder, chance))
        refused_or_right(
            "dataset TOML",
            lambda: config.subsets(path, options.Options(dataset_config=str(path), resolution="512")),
            lambda found: check_subsets(found, folder),
            [str(path)],
        )


def argument_of(name: str, chance: Random) -> list[str]:
    """One flag with some text behind it."""
    text = chance.choice(
        (*VALUES, "\udcff", "a" * 5000, "x=1", "tcd:steps=nan", "ddim:steps=1e9", "1,2", "../x", "demo")
    )
    return [f"--{name}={text.strip(chr(34))}"]


@pytest.mark.parametrize("program", [TRAINER, EVALUATOR], ids=["trainer", "evaluator"])
def test_a_flag_is_taken_as_it_is_or_refused(files, program, capsys):
    """argparse ends the program with the reason; everything else is as with a configuration file."""

    def read(arguments: list[str]) -> Any:
        try:
            return program.read(arguments)
        except SystemExit:
            raise ValueError(capsys.readouterr().err) from None

    fixed = [f"--{name}={value}" for name, value in files.items()]
    for chance in seeds(f"flags {program.name}", 1000):
        arguments = [*fixed, *argument_of(chance.choice(sorted(program.fields)), chance)]
        refused_or_right(
            "flag",
            lambda arguments=arguments: read(arguments),
            check_finite,
            values=list(program.fields),
        )
