"""The adapter: invisible until trained, switched off bit for bit, and the same in memory, merged and in a file."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tcd import lora


class Net(nn.Module):
    """Every kind of layer that can be adapted, and two that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", dilation=2), nn.SiLU())])
        self.around = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.around(self.blocks[0](self.stem(x)))
        return self.head(self.norm(self.point(self.depthwise(x))).mean((2, 3)))


LAYERS = ["stem", "blocks.0.0", "around", "point", "head"]
KEYS = {"lora_unet_stem", "lora_unet_blocks_0_0", "lora_unet_around", "lora_unet_point", "lora_unet_head"}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def trained(net: nn.Module, rank: int = 2, seed: int = 2, **how) -> lora.Lora:
    """An adapter that does something."""
    adapter = lora.inject(net, rank, **how)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapter


# --- injected ---------------------------------------------------------------------------------------------------------


def test_a_fresh_adapter_changes_no_bit(net, x):
    before = net(x)
    lora.inject(net, rank=4)
    assert torch.equal(net(x), before)


def test_a_trained_adapter_changes_the_output(net, x):
    before = net(x)
    trained(net)
    assert not torch.allclose(net(x), before, atol=0.1)


def test_linear_and_ungrouped_convolutions_are_adapted(net):
    adapter = lora.inject(net)
    assert sorted(adapter.names.values()) == sorted(LAYERS)
    assert set(adapter.layers) == set(adapter.names) == KEYS


def test_only_the_wanted_layers_are_adapted(net):
    assert list(lora.inject(net, want=lambda name: name in ("head", "depthwise")).names.values()) == ["head"]


def test_the_network_s_own_state_and_parameters_are_left_alone(net):
    before, parameters = copy.deepcopy(net.state_dict()), list(net.parameters())
    adapter = trained(net)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in before)
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert not {id(p) for p in adapter.parameters()} & {id(p) for p in parameters}


def test_the_adapter_s_parameters_are_float32_and_wait_for_gradient(net):
    adapter = lora.inject(net.half(), rank=3)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in adapter.parameters())
    assert len(list(adapter.parameters())) == 2 * len(LAYERS)


def test_the_gradient_of_a_fresh_adapter_is_that_of_the_way_up(net, x):
    """`up` is zero, so nothing comes through to `down` yet."""
    adapter = lora.inject(net)
    loss = net(x).square().mean()
    for path in adapter.paths.values():
        up, down = torch.autograd.grad(loss, [path.up, path.down], retain_graph=True)
        assert up.abs().max() > 0
        assert torch.equal(down, torch.zeros_like(path.down))


def test_the_path_of_a_linear_layer_is_up_down_times_alpha_over_rank():
    layer = nn.Linear(4, 3)
    adapter = trained(layer, rank=2, alpha=5.0)
    x, (path,) = torch.randn(6, 4), adapter.paths.values()
    wanted = F.linear(x, layer.weight, layer.bias) + (x @ path.down.T @ path.up.T) * 5.0 / 2
    torch.testing.assert_close(layer(x), wanted, rtol=0, atol=1e-6)


def test_alpha_is_the_rank_unless_said(net):
    assert {path.scale for path in lora.inject(net, rank=3).paths.values()} == {1.0}
    assert {path.scale for path in lora.inject(net, rank=4, alpha=2).paths.values()} == {0.5}


def test_a_rank_of_nothing_is_named(net, x):
    before = net(x)
    for rank in (0, -4):
        with pytest.raises(ValueError, match=f"rank must be at least 1, got {rank}"):
            lora.inject(net, rank)
    assert torch.equal(net(x), before)


def test_a_network_without_a_wanted_layer_is_refused(net):
    with pytest.raises(ValueError, match="nothing to adapt"):
        lora.inject(net, want=lambda name: name == "norm")


def test_half_precision_networks_are_adapted(net, x):
    before = net.bfloat16()(x.bfloat16())
    trained(net)
    assert net(x.bfloat16()).dtype == torch.bfloat16
    assert not torch.equal(net(x.bfloat16()), before)


# --- switched ---------------------------------------------------------------------------------------------------------


def test_switched_off_the_network_is_bit_for_bit_what_it_was(net, x):
    before = net(x)
    adapter = trained(net)
    with lora.toggle(adapter, False):
        assert torch.equal(net(x), before)


def test_the_switch_goes_back_to_where_it_was(net):
    adapter = lora.inject(net)
    with lora.toggle(adapter, False):
        with lora.toggle(adapter, True):
            assert adapter.on
        assert not adapter.on
    assert adapter.on


def test_the_switch_goes_back_after_an_error(net):
    adapter = lora.inject(net)
    with pytest.raises(RuntimeError, match="within"), lora.toggle(adapter, False):
        raise RuntimeError("within")
    assert adapter.on


# --- taken off and merged ---------------------------------------------------------------------------------------------


def test_removed_the_network_is_bit_for_bit_what_it_was(net, x):
    before = net(x)
    adapter = trained(net)
    adapter.remove()
    assert torch.equal(net(x), before)
    adapter.remove()  # once more is no harm
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("first", [0, 1])
def test_adapters_stack_and_come_off_in_any_order(net, x, first):
    alone = []
    for seed in (2, 3):
        adapter = trained(net, seed=seed)
        alone.append(net(x))
        adapter.remove()
    adapters = [trained(net, seed=seed) for seed in (2, 3)]
    assert not any(torch.equal(net(x), out) for out in alone)
    adapters[first].remove()
    assert torch.equal(net(x), alone[1 - first])
    with lora.toggle(adapters[first], False):
        assert torch.equal(net(x), alone[1 - first])


def test_a_copy_of_the_network_keeps_its_own_weights(net, x):
    trained(net)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), net(x))
    with torch.no_grad():
        net.head.weight.zero_()
    assert not torch.equal(twin(x), net(x))


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_merged_weights_compute_what_the_adapter_did(net, x, scale):
    adapter = trained(net, alpha=3.0)
    for path in adapter.paths.values():
        path.alpha *= scale
    wanted = net(x)
    for path in adapter.paths.values():
        path.alpha /= scale
    lora.merge(net, adapter, scale)
    # The same sums in another order: float32's 1e-7 of values of order 10, through five layers
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=1e-5)


def test_merging_takes_the_adapter_off(net, x):
    adapter = trained(net)
    lora.merge(net, adapter)
    merged = net(x)
    with lora.toggle(adapter, False):
        assert torch.equal(net(x), merged)


def test_merging_and_merging_back_restores_the_weights(net):
    before = copy.deepcopy(net.state_dict())
    adapter = trained(net)
    lora.merge(net, adapter, 1.0)
    lora.merge(net, adapter, -1.0)
    for key, weight in net.state_dict().items():
        torch.testing.assert_close(weight, before[key], rtol=0, atol=5e-7)  # two roundings of weights of order 1


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


def without(part):
    return lambda state: state.pop(f"lora_unet_stem.{part}")


def diffusers_keys(state):
    state.clear()
    state["down.lora_A.weight"] = torch.ones(2, 2)


def reshaped(part, *shape):
    return lambda state: state.update({f"lora_unet_stem.{part}": torch.ones(shape)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.clear(), "holds no kohya LoRA keys"),
        (diffusers_keys, "holds no kohya LoRA keys"),
        (
            lambda state: state.update({"lora_te_x.lora_down.weight": torch.ones(2, 2)}),
            r"1 of 6 modules are not in this network: \['lora_te_x'\]",
        ),
        (lambda state: state.update({"lora_unet_depthwise.alpha": torch.ones(())}), r"not in this .*depthwise"),
        (without("lora_up.weight"), r"lora_unet_stem has \['alpha', 'lora_down.weight'\]"),
        (without("lora_down.weight"), r"lora_unet_stem has \['alpha', 'lora_up.weight'\]"),
        (reshaped("dora_scale", 8), r"lora_unet_stem has .*'dora_scale'"),
        (reshaped("lora_down.weight", 2, 5, 3, 3), r"lora_unet_stem has shapes .*\(2, 5, 3, 3\).*\(2, 3, 3, 3\)"),
        (reshaped("lora_down.weight", 3, 3, 3, 3), r"lora_unet_stem has shapes"),
        (reshaped("lora_down.weight", 0, 3, 3, 3), r"lora_unet_stem has shapes"),
        (reshaped("lora_down.weight"), r"lora_unet_stem has shapes"),
        (reshaped("lora_up.weight", 8, 2), r"lora_unet_stem has shapes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(net, x, tmp_path, spoil, message):
    before = net(x)
    adapter = trained(net)
    state = lora.state_dict(adapter)
    adapter.remove()
    spoil(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        lora.load(tmp_path / "a.safetensors", net)
    assert torch.equal(net(x), before)
