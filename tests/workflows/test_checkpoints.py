"""demo/checkpoints.py: files of random weights, as ComfyUI reads them."""

import pytest
import torch
from safetensors.torch import load_file

from demo import checkpoints

SHAPES = {
    "net.weight": torch.empty(6, 4, 2, 2, device="meta"),
    "net.bias": torch.empty(6, device="meta"),
    "norm.weight": torch.empty(6, device="meta"),
    "ids": torch.empty(1, 3, dtype=torch.int64, device="meta"),
    "x.lora_up.weight": torch.empty(5, 4, device="meta"),
    "x.alpha": torch.empty((), device="meta"),
}


def test_a_file_has_these_names_shapes_and_values(tmp_path):
    checkpoints.write(tmp_path / "folder" / "a.safetensors", SHAPES)
    found = load_file(tmp_path / "folder" / "a.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in SHAPES.items()
    }
    assert found["ids"].tolist() == [[0, 1, 2]]
    assert found["net.weight"].dtype == torch.float16
    assert 0.1 < found["net.weight"].abs().max() <= 0.25  # 1 / sqrt(16 inputs)
    assert (found["norm.weight"].unique(), found["net.bias"].unique()) == (1, 0)
    assert found["x.lora_up.weight"].abs().max() <= checkpoints.LORA_UP
    assert found["x.alpha"] == checkpoints.RANK
    assert list((tmp_path / "folder").iterdir()) == [tmp_path / "folder" / "a.safetensors"]


def test_the_same_file_every_time(tmp_path):
    for name in ("a", "b"):
        checkpoints.write(tmp_path / name, SHAPES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "values", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(tmp_path / "a", SHAPES)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_base_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"unknown base model \['sd2'\]: choose from sd15, ip_adapter, sd3, sdxl"):
        checkpoints.make(tmp_path, ("sd2",))


@pytest.mark.host
def test_what_is_there_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FILES", {"x": {"loras/a": lambda: SHAPES, "loras/b": "loras/a"}})
    paths = checkpoints.make(tmp_path, ("x",))
    assert [path.name for path in paths] == ["a", "b"]
    assert paths[0].samefile(paths[1])
    paths[1].unlink()
    paths[1].write_text("mine")
    checkpoints.make(tmp_path, ("x",))
    assert paths[1].read_text() == "mine"
