"""The adapter: invisible until trained, switched off bit for bit, the same in memory and merged."""

import copy

import pytest
import torch
from lora_nets import KEYS, LAYERS, plain, trained
from torch import nn
from torch.nn import functional as F

from tcd import lora

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
    for path in plain(adapter):
        up, down = torch.autograd.grad(loss, [path.up, path.down], retain_graph=True)
        assert up.abs().max() > 0
        assert torch.equal(down, torch.zeros_like(path.down))


def test_the_path_of_a_linear_layer_is_up_down_times_alpha_over_rank():
    layer = nn.Linear(4, 3)
    adapter = trained(layer, rank=2, alpha=5.0)
    x, (path,) = torch.randn(6, 4), plain(adapter)
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
