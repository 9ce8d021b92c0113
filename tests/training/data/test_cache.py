"""Tensors that are kept on the disk: named by what they were made from, whole or not there."""

import time

import pytest
import torch
from torch import nn

from training.data import cache


@pytest.fixture
def folder(tmp_path):
    return cache.Folder(tmp_path / "cache" / "latents")


def test_what_is_put_in_comes_out(folder):
    tensors = {"cross": torch.randn(1, 2, 3), "mask": torch.ones(2, dtype=torch.int64), "turned": torch.rand(2, 3).T}
    folder["a"] = tensors
    assert "a" in folder
    assert "b" not in folder
    again = folder["a"]
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in folder.path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("left", [0, 5, -4])
def test_a_broken_file_counts_as_none_and_can_be_made_again(folder, left):
    folder["a"] = {"x": torch.ones(9)}
    folder.file("a").write_bytes(folder.file("a").read_bytes()[:left])
    assert "a" not in folder
    with pytest.raises(ValueError, match=r"the cache .*a\.safetensors cannot be read"):
        folder["a"]
    folder["a"] = {"x": torch.zeros(9)}
    assert torch.equal(folder["a"]["x"], torch.zeros(9))


def test_an_interrupted_writing_leaves_nothing(folder, monkeypatch):
    def interrupted(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder["a"] = {"x": torch.ones(9)}
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("most", [None, 16])
def test_the_key_of_weights_sees_values_formats_and_names(most):
    linear, norm = nn.Linear(64, 64), nn.BatchNorm1d(2)
    net = nn.Sequential(linear, norm)
    keys = [cache.weights_key(net, most), cache.weights_key(nn.ModuleDict({"a": linear, "b": norm}), most)]
    assert cache.weights_key(net, most) == keys[0]
    with torch.no_grad():
        linear.weight.add_(1)
    keys += [cache.weights_key(net, most), cache.weights_key(net.bfloat16(), most)]
    assert len(set(keys)) == 4


def test_of_small_tensors_every_number_counts():
    net = nn.Linear(8, 8)
    before = cache.weights_key(net, 64)
    with torch.no_grad():
        net.weight[3, 5] += 1
    assert cache.weights_key(net, 64) != before


def test_ten_million_weights_take_no_time():
    net = nn.Linear(3200, 3200)
    began = time.monotonic()
    cache.weights_key(net)
    assert time.monotonic() - began < 1
