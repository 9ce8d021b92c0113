"""A new adapter: which layers it has and how wide; dropout as kohya's networks have it; norms that are held down."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lora_nets import LAYERS, Net, plain, trained
from torch import nn

from tcd import lora

WITH_KERNEL = {"stem", "blocks.0.0", "around"}


def ranks(adapter: lora.Lora) -> dict[str, int]:
    return {adapter.names[key]: path.rank for key, path in adapter.paths.items()}


def scales(adapter: lora.Lora) -> dict[str, float]:
    return {adapter.names[key]: path.scale for key, path in adapter.paths.items()}


def test_convolutions_with_a_kernel_have_a_rank_and_an_alpha_of_their_own(net):
    adapter = lora.inject(net, 4, 2.0, conv_rank=2, conv_alpha=4.0)
    assert ranks(adapter) == {name: 2 if name in WITH_KERNEL else 4 for name in LAYERS}
    assert scales(adapter) == {name: 2.0 if name in WITH_KERNEL else 0.5 for name in LAYERS}


def test_they_are_as_the_others_unless_said(net):
    assert set(ranks(lora.inject(net, 4)).values()) == {4}
    assert set(scales(lora.inject(net, 4, 2.0, conv_rank=4)).values()) == {0.5}
    assert set(scales(lora.inject(net, 4, conv_rank=2)).values()) == {1.0}


def test_a_conv_rank_of_0_leaves_them_out(net):
    assert ranks(lora.inject(net, 4, conv_rank=0)) == {"point": 4, "head": 4}


def test_a_conv_rank_below_0_is_named(net):
    with pytest.raises(ValueError, match="conv_rank must be at least 0, got -1"):
        lora.inject(net, 4, conv_rank=-1)


# --- dropout ----------------------------------------------------------------------------------------------------------


def spread(layer: nn.Module, x: torch.Tensor, **drops: Any) -> torch.Tensor:
    """What a LoRA of rank 4 with all factors 1 adds to `layer`, by a thousand samples."""
    adapter = lora.inject(layer, 4, **drops)
    for parameter in adapter.parameters():
        nn.init.ones_(parameter)
    torch.manual_seed(0)
    found = layer(x)
    adapter.eval()
    assert torch.equal(layer(x), layer(x))
    with lora.toggle(adapter, False):
        return found - layer(x)


def linear() -> nn.Linear:
    return nn.Linear(1, 1, bias=False)


def test_dropout_is_of_each_inner_value():
    added = spread(linear(), torch.ones(1000, 5, 1), dropout=0.5)
    assert {round(value) for value in added.flatten().tolist()} == {0, 2, 4, 6, 8}  # of four, each twice as large
    assert added.mean().item() == pytest.approx(4, abs=0.2)
    assert (added != added[:, :1]).any()


@pytest.mark.parametrize("make", [linear, lambda: nn.Conv2d(1, 1, 1, bias=False)])
def test_rank_dropout_is_of_whole_ranks_for_a_sample(make):
    shape = (1000, 5, 1) if isinstance(make(), nn.Linear) else (1000, 1, 2, 2)
    added = spread(make(), torch.ones(shape), rank_dropout=0.5).flatten(1)
    assert torch.equal(added, added[:, :1].expand_as(added))
    assert {round(value) for value in added.flatten().tolist()} == {0, 2, 4, 6, 8}
    assert added.mean().item() == pytest.approx(4, abs=0.2)


def test_module_dropout_is_of_a_layer_s_path():
    layer = linear()
    adapter = lora.inject(layer, 4, module_dropout=0.25)
    for parameter in adapter.parameters():
        nn.init.ones_(parameter)
    torch.manual_seed(0)
    with torch.no_grad():
        own = layer.weight.item()
        added = [round(layer(torch.ones(1, 1)).item() - own) for _ in range(1000)]
    assert set(added) == {0, 4}
    assert added.count(0) == pytest.approx(250, abs=50)


@pytest.mark.parametrize("name", ["dropout", "rank_dropout", "module_dropout"])
def test_in_evaluation_nothing_is_dropped(net, x, name):
    wanted = trained(net)
    before = net(x)
    wanted.remove()
    drops: dict[str, Any] = {name: 0.5}
    adapter = trained(net, **drops)
    assert not torch.equal(net(x), before)
    adapter.eval()
    assert torch.equal(net(x), before)
    adapter.train()
    assert not torch.equal(net(x), before)


def test_a_loaded_adapter_can_be_given_dropout(net, x, tmp_path):
    adapter = trained(net)
    lora.save(tmp_path / "a", adapter, dtype=torch.float32)
    adapter.remove()
    loaded = lora.load(tmp_path / "a", net)
    before = net(x)
    lora.set_dropout(loaded, rank_dropout=0.5)
    assert not torch.equal(net(x), before)
    lora.set_dropout(loaded)
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("name", ["dropout", "rank_dropout", "module_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range_is_named(net, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\), got {value}"):
        lora.inject(net, 4, **{name: value})


def test_kinds_without_inner_values_take_module_dropout_alone():
    adapter = lora.Lora()
    shape = torch.Size([4, 4])
    adapter.add("x", lora.LoHa(shape, {n: torch.ones(4, 4) for n in ("w1_a", "w1_b", "w2_a", "w2_b")}))
    with pytest.raises(ValueError, match="lora_unet_x is LoHa without inner values"):
        lora.set_dropout(adapter, dropout=0.1)
    lora.set_dropout(adapter, module_dropout=0.1)
    with pytest.raises(ValueError, match="lora_unet_x is LoHa: only the norms of LoRA are scaled"):
        lora.scale_norms(adapter, 1.0)


# --- norms ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.05, 20))
def test_norms_above_the_limit_are_scaled_to_it_and_others_left(limit):
    adapter = trained(Net(), alpha=3.0)
    before = [path.delta().clone() for path in plain(adapter)]
    assert lora.scale_norms(adapter, limit) == sum(bool(delta.norm() > limit) for delta in before)
    for path, delta in zip(plain(adapter), before, strict=True):
        wanted = delta * min(1.0, limit / delta.norm().item())
        torch.testing.assert_close(path.delta(), wanted, rtol=1e-4, atol=1e-6)
    assert lora.scale_norms(adapter, 1.001 * limit) == 0


def test_both_factors_take_half_of_the_scale(net):
    adapter = trained(net)
    (down, up), path = (p.detach().clone() for p in plain(adapter)[0].parameters()), plain(adapter)[0]
    norm = path.delta().norm().item()
    lora.scale_norms(adapter, norm / 4)
    torch.testing.assert_close((path.down, path.up), (down / 2, up / 2))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_of_nothing_is_named(net, limit):
    with pytest.raises(ValueError, match=f"max_norm must be above 0, got {limit}"):
        lora.scale_norms(trained(net), limit)
