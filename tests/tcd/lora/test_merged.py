"""A layer and its LoRA as one product: the same output and gradients, where it fits."""

import pytest
import torch
from lora_nets import Net, trained
from torch import nn

from tcd import lora
from tcd.lora.merged import Merged

CONV = torch.channels_last
CASES = {
    "linear": (lambda: nn.Linear(5, 4), (2, 3, 5)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (6, 5)),
    "kernel and stride": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 5, 6)),
    "channels last": (lambda: nn.Conv2d(3, 4, 3, padding=1, dilation=2).to(memory_format=CONV), (2, 3, 6, 5)),
    "point": (lambda: nn.Conv2d(3, 4, 1, bias=False), (2, 3, 4, 4)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradients_are_those_of_the_output(case):
    torch.manual_seed(0)
    make, shape = CASES[case]
    layer = make().double().requires_grad_(False)
    path = lora.LoRA.fresh(layer, 2).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    up = torch.randn_like(path.up).requires_grad_()
    assert torch.autograd.gradcheck(lambda *parts: Merged.apply(*parts, layer, 0.7), (x, path.down, up))


def results(net: nn.Module, adapter: lora.Lora, x: torch.Tensor) -> list[torch.Tensor]:
    out = net(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *adapter.parameters()])]


def test_a_network_is_the_same_with_and_without():
    torch.manual_seed(0)
    net = Net().requires_grad_(False).to(memory_format=CONV)  # pyright: ignore[reportCallIssue]
    x = torch.randn(4, 3, 9, 8, requires_grad=True)
    before = net(x)
    adapter = trained(net, alpha=3.0)
    wanted = results(net, adapter, x)
    adapter.merges = True
    for found, goal in zip(results(net, adapter, x), wanted, strict=True):
        torch.testing.assert_close(found, goal, rtol=1e-5, atol=1e-5 * float(goal.abs().max()))
    with lora.toggle(adapter, False):
        assert torch.equal(net(x), before)


def is_merged(layer: nn.Linear, adapter: lora.Lora, x: torch.Tensor) -> bool:
    adapter.merges = True
    return "Merged" in type(layer(x).grad_fn).__name__


def test_it_is_done_only_where_it_is_exact_and_pays():
    def made(dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> tuple[nn.Linear, lora.Lora]:
        layer = nn.Linear(8, 8).to(dtype).requires_grad_(False)
        return layer, lora.inject(nn.Sequential(layer), 2, dropout=dropout)

    many, few = torch.randn(16, 8), torch.randn(4, 8)
    assert is_merged(*made(), many)
    assert not is_merged(*made(), few)
    assert not is_merged(*made(torch.bfloat16), many.bfloat16())  # which would round the difference away
    assert not is_merged(*made(dropout=0.5), many)
    layer, adapter = made()
    lora.inject(nn.Sequential(layer), 2)
    assert not is_merged(layer, adapter, many)
    layer, adapter = made()
    layer.requires_grad_(True)
    assert not is_merged(layer, adapter, many)
