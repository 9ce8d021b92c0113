"""The trainer as a whole, `--dry_run`, on data and weights of which one thing is bad: one line that names it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fuzz.mutations import damaged, seeds
from fuzz.rule import refused_or_right
from host_process import pack
from safetensors.torch import save_file
from short_runs import flags_of, pictures

from training import train

pytestmark = [pytest.mark.host, pytest.mark.slow]

LORA = {
    "lora_unet_middle_block_1_proj_in.lora_down.weight": torch.full((2, 8), torch.nan),
    "lora_unet_middle_block_1_proj_in.lora_up.weight": torch.ones(8, 2),
}


def broken_picture(data: Path) -> dict:
    path = data / "2_hearts" / "red.png"
    path.write_bytes(path.read_bytes()[:-20])
    return {}


def broken_caption(data: Path) -> dict:
    (data / "2_hearts" / "red.txt").write_bytes("a red heart".encode("utf-16-le"))
    return {}


def broken_lora(option: str) -> Callable[[Path], dict]:
    def made(data: Path) -> dict:
        save_file(LORA, data / "red.safetensors")
        path = str(data / "red.safetensors")
        return {option: path, "network_args": ()} if option == "network_weights" else {option: (path,)}

    return made


def broken_dataset(data: Path) -> dict:
    (data / "red.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = ''", encoding="utf-8")
    return {"train_data_dir": "", "dataset_config": str(data / "red.toml")}


def broken_prompts(data: Path) -> dict:
    (data / "red").write_bytes(b"\xff\xfer\0e\0d\0")
    return {"train_data_dir": "", "prompts": str(data / "red")}


BROKEN = {
    "picture": broken_picture,
    "caption": broken_caption,
    "base_weights": broken_lora("base_weights"),
    "network_weights": broken_lora("network_weights"),
    "dataset": broken_dataset,
    "prompts": broken_prompts,
}


def program(flags: list[str], patch: pytest.MonkeyPatch) -> None:
    """The command line; its one line of reason is raised."""
    patch.setattr(sys, "argv", ["training.train", *flags, "--dry_run"])
    try:
        train.main()
    except SystemExit as end:
        raise ValueError(str(end)) from end  # a bare number, as of a crash, names nothing


@pytest.mark.parametrize("what", BROKEN)
def test_the_trainer_names_what_is_bad(tmp_path, monkeypatch, what):
    pack()
    data = pictures(tmp_path / "data")
    flags = flags_of(data, tmp_path / "output", **BROKEN[what](data))
    assert not refused_or_right(
        "trainer", lambda: program(flags, monkeypatch), print, ["red"] if what != "dataset" else ["image_dir"]
    )


def test_the_trainer_plans_with_what_is_left_or_names_what_is_bad(tmp_path, monkeypatch):
    pack()
    for number, chance in enumerate(seeds("trainer", 12)):
        data = pictures(tmp_path / f"data{number}")
        path = chance.choice(sorted((data / "2_hearts").iterdir()))
        path.write_bytes(damaged(path.read_bytes(), chance))
        flags = flags_of(data, tmp_path / f"output{number}")
        refused_or_right("trainer", lambda flags=flags: program(flags, monkeypatch), lambda done: None, [path.stem])
