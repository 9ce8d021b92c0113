"""What is computed again instead of kept: the same gradients to the bit, from less."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trials import gradients, trial_of

from training import recompute

FAMILIES = {"sd15": 0.75, "sd3": 0.95, "flux": 0.95, "lumina2": 1.0}  # part of what was kept before, at most


def kept_by(compute: Any, weights: Iterable[Tensor], monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of the storages that are kept, besides the weights, for the backward pass of what `compute` gives."""
    sizes: dict[int, int] = {}
    keep = recompute.kept

    def counted(tensor: Tensor) -> recompute.Make:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return keep(tensor)

    with monkeypatch.context() as patch, recompute.keeping_less():
        patch.setattr(recompute, "kept", counted)
        out = compute()  # alive, lest a storage's place is used twice
    assert out.requires_grad
    theirs = {weight.untyped_storage().data_ptr() for weight in weights}
    return sum(size for place, size in sizes.items() if place not in theirs)


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_to_the_bit_and_less_is_kept(family, monkeypatch):
    trial = trial_of(family)
    trial.adapter.merges = True  # as the trainer has it
    weights = [*trial.net.parameters(), *trial.adapter.parameters()]
    wanted, before = gradients(trial), kept_by(trial.evaluate, weights, monkeypatch)
    recompute.prepare(trial.net)
    with recompute.keeping_less():
        found = gradients(trial)
    assert all(map(torch.equal, found, wanted))
    assert kept_by(trial.evaluate, weights, monkeypatch) <= FAMILIES[family] * before


def chain() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))
    return net, torch.randn(2, 4, 5, 5)


def test_norm_and_activation_are_not_kept(monkeypatch):
    net, x = chain()
    recompute.prepare(net)
    hidden, statistics = 2 * 8 * 5 * 5 * 4, 2 * 2 * 2 * 4
    assert kept_by(lambda: net(x), net.parameters(), monkeypatch) == x.nbytes + hidden + statistics


def test_what_is_made_again_stays_until_the_last_that_needs_it():
    calls = []
    one = recompute.Again(lambda: torch.ones(1) if calls.append(0) is None else torch.ones(0), 0)
    one.due = 2
    first = one.take()
    assert one.take() is first
    assert calls == [0]
    assert one.made is None


def test_an_output_that_was_written_to_is_kept_as_it_is():
    net, x = chain()
    weight = net[0].weight

    def slope() -> Tensor:
        hidden = net[1](net[0](x))
        hidden *= 2
        return torch.autograd.grad(net[3](net[2](hidden)).square().sum(), weight)[0]

    wanted = slope()
    recompute.prepare(net)
    with recompute.keeping_less():
        assert torch.equal(slope(), wanted)


def test_writing_to_what_the_backward_pass_needs_is_an_error():
    net, x = chain()
    recompute.prepare(net)
    with recompute.keeping_less():
        out = net(x)
    with torch.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="was modified in place"):
        out.sum().backward()
