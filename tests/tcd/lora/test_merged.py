"""A layer and its LoRA in one operation, against both one after the other: outputs, gradients, and what is kept."""

import copy

import pytest
import torch
from lora_nets import trained
from torch import Tensor, nn

from tcd import lora
from tcd.lora import merged

LAYERS = {
    "linear": lambda: (nn.Linear(6, 5), torch.randn(2, 40, 6)),
    "no bias": lambda: (nn.Linear(6, 5, bias=False), torch.randn(80, 6)),
    "conv": lambda: (nn.Conv2d(6, 5, 3, stride=2, padding=1), torch.randn(2, 6, 12, 12)),
    "dilated": lambda: (nn.Conv2d(6, 5, 3, padding=2, dilation=2), torch.randn(2, 6, 9, 9)),
    "point": lambda: (nn.Conv2d(6, 5, 1), torch.randn(2, 6, 9, 9)),
    "channels last": lambda: (
        nn.Conv2d(6, 5, 3).to(memory_format=torch.channels_last),
        torch.randn(2, 6, 12, 12).contiguous(memory_format=torch.channels_last),
    ),
}


@pytest.fixture(params=LAYERS)
def case(request) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layer, x = LAYERS[request.param]()
    return layer.requires_grad_(False), x


def evaluate(layer: nn.Module, x: Tensor, adapter: lora.Lora) -> tuple[Tensor, ...]:
    """The output, and the gradients of the input and of both factors."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(x)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    return out.detach(), *torch.autograd.grad(out, [x, *adapter.parameters()], slope)


def test_it_is_what_layer_and_path_compute_one_after_the_other(case, monkeypatch):
    layer, x = case
    adapter = trained(layer, alpha=3.0)
    assert merged.pays(next(iter(adapter.paths.values())), layer, x)
    found = evaluate(layer, x, adapter)
    monkeypatch.setattr(merged, "pays", lambda *args: False)
    for got, wanted in zip(found, evaluate(layer, x, adapter), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_differences(case):
    layer, x = case
    adapter = trained(layer.double()).double()
    x = x.double().requires_grad_()
    path = next(iter(adapter.paths.values()))
    assert merged.pays(path, layer, x)
    assert torch.autograd.gradcheck(lambda x, *factors: layer(x), (x, *adapter.parameters()))


def test_the_input_alone_is_kept(case):
    layer, x = case
    adapter = trained(layer)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        layer(x)
    own = {parameter.data_ptr() for parameter in adapter.parameters()}
    assert {t.data_ptr() for t in kept} - own == {x.data_ptr()}


def test_its_output_may_be_written_to(case):
    layer, x = case
    adapter = trained(layer)
    out = layer(x)
    out += 1
    assert all(slope.any() for slope in torch.autograd.grad(out.sum(), list(adapter.parameters())))


def test_the_layer_is_not_touched_and_neither_is_a_fresh_adapter_seen(case):
    layer, x = case
    before, weight = layer(x), copy.deepcopy(layer.state_dict())
    adapter = lora.inject(layer, 2)
    assert torch.equal(layer(x), before)
    layer(x).sum().backward()
    assert all(torch.equal(layer.state_dict()[key], weight[key]) for key in weight)
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_it_is_left_to_the_path_where_it_does_not_pay_or_is_not_exact():
    layer = nn.Linear(64, 64).requires_grad_(False)
    path = next(iter(lora.inject(layer, 2, dropout=0.5).paths.values()))
    many, few = torch.ones(100, 64), torch.ones(8, 64)
    assert not merged.pays(path, layer, many)  # as long as something is dropped
    path.eval()
    assert merged.pays(path, layer, many)
    assert not merged.pays(path, layer, few)
    assert not merged.pays(path, layer.bfloat16(), many.bfloat16())
    assert not merged.pays(path, layer.float().requires_grad_(), many)  # whose own gradient would be lost
    with torch.autocast("cpu", torch.bfloat16):
        assert not merged.pays(path, layer.requires_grad_(False), many)


@pytest.mark.parametrize(("layer", "x"), [(nn.Linear(1, 1), torch.ones(1)), (nn.Conv2d(1, 1, 1), torch.ones(1, 4, 4))])
def test_a_single_sample_without_a_batch_is_computed_too(layer, x):
    adapter = trained(layer.requires_grad_(False), rank=1)
    path = next(iter(adapter.paths.values()))
    wanted = layer.weight.item() + path.delta().item() + layer.bias.item()
    torch.testing.assert_close(layer(x), torch.full_like(x, wanted))
    assert all(slope.any() for slope in torch.autograd.grad(layer(x).sum(), list(adapter.parameters())))


def test_two_adapters_are_added_by_their_paths():
    layer = nn.Linear(6, 5).requires_grad_(False)
    x = torch.randn(50, 6)
    before = layer(x)
    both = [trained(layer, seed=seed) for seed in (2, 3)]
    wanted = before + sum(path.path(layer, x) for adapter in both for path in adapter.paths.values())
    torch.testing.assert_close(layer(x), wanted)
