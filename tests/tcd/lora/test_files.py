"""A file gives the adapter that was saved, with kohya's keys; what is no LoRA file is refused."""

import json

import pytest
import torch
from lora_nets import KEYS, trained
from safetensors.torch import load_file, save_file

import tcd
from tcd import embed, lora
from tcd.embed import from_tensors, to_tensors

# --- in a file --------------------------------------------------------------------------------------------------------


def test_keys_shapes_and_alpha_are_kohya_s(net, tmp_path):
    lora.save(tmp_path / "a.safetensors", trained(net, rank=2, alpha=4))
    state = load_file(tmp_path / "a.safetensors")
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(state) == {f"{key}.{part}" for key in KEYS for part in parts}
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    assert shapes["lora_unet_stem.lora_down.weight"] == (2, 3, 3, 3)
    assert shapes["lora_unet_stem.lora_up.weight"] == (8, 2, 1, 1)
    assert shapes["lora_unet_head.lora_down.weight"] == (2, 4)
    assert shapes["lora_unet_head.lora_up.weight"] == (5, 2)
    assert all(tensor.shape == () and tensor == 4 for key, tensor in state.items() if key.endswith(".alpha"))


@pytest.mark.parametrize("alpha", [None, 1.0, 7.0])
def test_a_float32_file_gives_the_same_bits(net, x, tmp_path, alpha):
    adapter = trained(net, alpha=alpha)
    wanted = net(x)
    lora.save(tmp_path / "a.safetensors", adapter, dtype=torch.float32)
    adapter.remove()
    loaded = lora.load(tmp_path / "a.safetensors", net)
    assert torch.equal(net(x), wanted)
    assert all(p.requires_grad for p in loaded.parameters())
    assert loaded.skipped == ()


def test_a_float16_file_gives_what_float16_can(net, x, tmp_path):
    adapter = trained(net)
    wanted = net(x)
    lora.save(tmp_path / "a.safetensors", adapter)
    adapter.remove()
    lora.load(tmp_path / "a.safetensors", net)
    # Five layers of weights that are off by 2^-11 each, and outputs of order 1
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=5e-3)


def test_a_file_without_alpha_has_the_scale_1(net, x, tmp_path):
    adapter = trained(net, rank=2)
    wanted = net(x)
    state = {key: t for key, t in lora.state_dict(adapter).items() if not key.endswith(".alpha")}
    save_file(state, tmp_path / "a.safetensors")
    adapter.remove()
    lora.load(tmp_path / "a.safetensors", net)
    assert torch.equal(net(x), wanted)


def test_a_file_of_some_layers_adapts_those(net, x, tmp_path):
    adapter = trained(net, want=lambda name: name == "head")
    wanted = net(x)
    lora.save(tmp_path / "a.safetensors", adapter, dtype=torch.float32)
    adapter.remove()
    assert list(lora.load(tmp_path / "a.safetensors", net).names.values()) == ["head"]
    assert torch.equal(net(x), wanted)


def test_metadata_is_kept_with_a_hash_of_the_weights(net, tmp_path):
    theirs = {"ss_network_dim": "2"}
    for name, seed in (("a", 2), ("same", 2), ("other", 3)):
        adapter = trained(net, seed=seed)
        lora.save(tmp_path / name, adapter, theirs)
        adapter.remove()
    metadata = {name: lora.read(tmp_path / name)[1] for name in ("a", "same", "other")}
    assert theirs == {"ss_network_dim": "2"}
    assert metadata["a"]["ss_network_dim"] == "2"
    hashes = {name: entry["sshs_model_hash"] for name, entry in metadata.items()}
    assert hashes["a"] == hashes["same"] != hashes["other"]
    assert len(bytes.fromhex(hashes["a"])) == 32


def test_settings_become_strings_as_kohya_writes_them():
    settings = {"ss_network_dim": 4, "ss_network_args": {"conv_dim": 2}, "ss_v2": False, "name": "x", "ss_seed": None}
    metadata = lora.metadata_of(settings)
    assert metadata == {"ss_network_dim": "4", "ss_network_args": '{"conv_dim": 2}', "ss_v2": "false", "name": "x"}
    assert json.loads(metadata["ss_network_args"]) == settings["ss_network_args"]


def test_saving_makes_the_folder_and_leaves_one_file(net, tmp_path):
    adapter = trained(net)
    for _ in range(2):
        lora.save(str(tmp_path / "new" / "a.safetensors"), adapter)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


# --- beside the LoRA, and by other names ------------------------------------------------------------------------------


def test_extra_tensors_go_with_the_lora_and_come_back(net, x, tmp_path):
    adapter = trained(net)
    wanted, told = net(x), tcd.TargetTime(8, 6, scale=2.0)
    lora.save(tmp_path / "a", adapter, dtype=torch.float32, extra=to_tensors(told))
    adapter.remove()
    loaded = lora.load(tmp_path / "a", net)
    assert torch.equal(net(x), wanted)
    back = from_tensors(loaded.extra)
    assert back is not None
    assert back.scale == 2.0
    assert all(torch.equal(back.state_dict()[key], value) for key, value in told.state_dict().items())


def test_a_lora_alone_has_nothing_extra(net, tmp_path):
    adapter = trained(net)
    lora.save(tmp_path / "a", adapter)
    adapter.remove()
    assert lora.load(tmp_path / "a", net).extra == {}


def test_extra_tensors_of_another_name_are_refused(net, tmp_path):
    with pytest.raises(ValueError, match=r"extra tensors begin with tcd_target_time\., got other\.weight"):
        lora.save(tmp_path / "a", trained(net), extra={"other.weight": torch.ones(1)})
    assert not (tmp_path / "a").exists()


def test_both_packages_mean_the_same_extra_tensors():
    assert embed.PREFIX in lora.EXTRA


def test_a_file_of_extra_tensors_alone_is_no_lora_but_can_be_read(net, tmp_path):
    made = tcd.TargetTime(8, 6)
    save_file(to_tensors(made), tmp_path / "a")
    back = from_tensors(lora.read(tmp_path / "a")[0])
    assert back is not None
    assert torch.equal(back.hidden.weight, made.hidden.weight)
    with pytest.raises(ValueError, match="holds no LoRA keys: nothing for this network"):
        lora.load(tmp_path / "a", net)


@pytest.mark.parametrize(("names", "given"), [("kohya", True), ("diffusers", False)])
def test_a_naming_that_is_not_known_is_refused(net, names, given):
    with pytest.raises(ValueError, match=f"names must be one of own, diffusers, .* got '{names}'"):
        lora.state_dict(trained(net), names=names, net=net if given else None)


def test_a_network_of_other_names_keeps_its_own(net):
    adapter = trained(net)
    assert lora.state_dict(adapter, names="diffusers", net=net).keys() == lora.state_dict(adapter).keys()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(net, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such LoRA file: .*gone.safetensors"):
        lora.load(tmp_path / "gone.safetensors", net)
    with pytest.raises(FileNotFoundError, match="no such LoRA file"):
        lora.load(tmp_path, net)


@pytest.mark.parametrize("content", [b"", b"not tensors", bytes(range(256)) * 8], ids=len)
def test_a_file_of_something_else_is_refused(net, tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.safetensors is not a readable safetensors file"):
        lora.load(tmp_path / "a.safetensors", net)


def test_a_file_cut_short_is_refused(net, tmp_path):
    path = tmp_path / "a.safetensors"
    lora.save(path, trained(net))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        lora.load(path, net)
