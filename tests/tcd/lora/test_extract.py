"""What one network has and another has not: found again where it is of low rank, and the best there is where not."""

import copy

import pytest
import torch
from lora_nets import LAYERS, Net, trained, weight_of
from torch import nn

from tcd import lora


@pytest.fixture
def tuned(net) -> Net:
    """The network with a difference of rank 2 in every layer."""
    twin = copy.deepcopy(net)
    lora.merge(twin, trained(twin, rank=2, alpha=3.0))
    return twin


def changed(net: nn.Module, *names: str, by: float = 1.0) -> nn.Module:
    """A copy with random numbers added to some tensors."""
    twin, generator = copy.deepcopy(net), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name in names:
            tensor = twin.state_dict()[name]
            tensor += by * torch.randn(tensor.shape, generator=generator)
    return twin


def networks(tuned: nn.Module, base: nn.Module):
    return tuned, base


def states(tuned: nn.Module, base: nn.Module):
    return tuned.state_dict(), base.state_dict()


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("of", [networks, states])
def test_a_difference_of_low_rank_is_found_again(net, tuned, x, rank, of):
    want = (lambda name: name != "depthwise") if of is states else (lambda name: True)
    mine, theirs = of(net, tuned)
    adapter = lora.extract(theirs, mine, rank, want)
    assert sorted(adapter.names.values()) == sorted(LAYERS)
    for name, kept in adapter.kept.items():
        assert kept == pytest.approx(1, abs=1e-9), name
    assert adapter.kept_in_all == pytest.approx(1, abs=1e-9)
    assert adapter.others == ()
    lora.attach(net, adapter)
    torch.testing.assert_close(net(x), tuned(x), rtol=0, atol=1e-5)


def test_of_more_it_is_the_nearest_of_its_rank_and_says_how_near(net):
    """The truncation error of a random matrix, from the eigenvalues of d d^T instead of an SVD."""
    tuned = changed(net, "stem.weight", "head.weight")
    adapter = lora.extract(tuned, net, rank=2)
    for key, path in adapter.paths.items():
        name = adapter.names[key]
        d = (weight_of(tuned, name) - weight_of(net, name)).flatten(1).double()
        eigenvalues = torch.linalg.eigvalsh(d @ d.T)
        lost = (path.delta().flatten(1) - d).square().sum()
        torch.testing.assert_close(lost, eigenvalues[:-2].sum(), rtol=1e-4, atol=0)
        assert adapter.kept[name] == pytest.approx((1 - lost / d.square().sum()).item(), abs=1e-5)
        assert 0.1 < adapter.kept[name] < 0.95


def test_all_layers_together_are_weighed_by_their_difference(net):
    adapter = lora.extract(changed(changed(net, "stem.weight", by=10.0), "head.weight", by=0.01), net, rank=1)
    assert adapter.kept_in_all == pytest.approx(adapter.kept["stem"], abs=1e-4)
    assert abs(adapter.kept["head"] - adapter.kept["stem"]) > 0.01


def test_a_rank_of_all_there_is_keeps_all(net):
    tuned = changed(net, "head.weight")
    adapter = lora.extract(tuned, net, rank=100)
    (path,) = adapter.paths.values()
    assert (path.rank, path.scale) == (4, 1.0)
    lora.merge(net, adapter)
    torch.testing.assert_close(weight_of(net, "head"), weight_of(tuned, "head"), rtol=0, atol=1e-6)


def test_layers_without_a_difference_are_left_out_and_networks_alone(net):
    tuned = changed(net, "blocks.0.0.weight", "stem.bias", "norm.weight", "depthwise.weight")
    before = copy.deepcopy(states(net, tuned))
    adapter = lora.extract(tuned, net, rank=1)
    assert list(adapter.names.values()) == ["blocks.0.0"]
    assert set(adapter.others) == {"stem.bias", "norm.weight", "depthwise.weight"}
    for state, old in zip(states(net, tuned), before, strict=True):
        assert all(torch.equal(state[key], old[key]) for key in old)
    assert not any("forward" in vars(module) for module in net.modules())


def test_only_the_wanted_layers_are_taken(net, tuned):
    adapter = lora.extract(tuned, net, 1, want=lambda name: name == "point")
    assert list(adapter.names.values()) == ["point"]
    assert set(adapter.others) == {f"{name}.weight" for name in LAYERS if name != "point"}


def test_it_is_saved_and_loaded(net, tuned, x, tmp_path):
    lora.save(tmp_path / "a", lora.extract(tuned, net, 2), dtype=torch.float32)
    lora.load(tmp_path / "a", net)
    torch.testing.assert_close(net(x), tuned(x), rtol=0, atol=1e-5)


def test_half_precision_weights_are_compared_in_float32(net, tuned):
    adapter = lora.extract(tuned.half(), net.half(), 8)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    for key, path in adapter.paths.items():
        mine, theirs = (weight_of(n, adapter.names[key]).float() for n in (net, tuned))
        torch.testing.assert_close(path.delta(), theirs - mine, rtol=0, atol=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_of_nothing_is_named(net, tuned, rank):
    with pytest.raises(ValueError, match=f"rank must be at least 1, got {rank}"):
        lora.extract(tuned, net, rank)


@pytest.mark.parametrize("of", [networks, states])
def test_a_layer_that_one_lacks_is_named(net, tuned, of):
    del net.head
    theirs, mine = of(tuned, net)
    with pytest.raises(ValueError, match="layer head is missing in base"):
        lora.extract(theirs, mine, 1)
    with pytest.raises(ValueError, match="layer head is missing in tuned"):
        lora.extract(mine, theirs, 1)


def test_a_layer_of_another_shape_is_named(net, tuned):
    net.head = nn.Linear(4, 6)
    with pytest.raises(ValueError, match=r"layer head: tuned has shape \(5, 4\), base \(6, 4\)"):
        lora.extract(tuned, net, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(net, tuned, value):
    with torch.no_grad():
        tuned.head.weight[0, 0] = value
    with pytest.raises(ValueError, match="layer head: the difference of the weights is not finite"):
        lora.extract(tuned, net, 1)


def test_no_difference_is_no_lora(net):
    with pytest.raises(ValueError, match="no wanted layer differs between the networks: nothing to extract"):
        lora.extract(changed(net, "head.bias"), net, 1)


# --- put on a network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [lora.attach, lora.merge])
@pytest.mark.parametrize(
    ("head", "message"),
    [
        (nn.Linear(4, 6), r"head has a weight of shape \(6, 4\), the adapter one of \(5, 4\)"),
        (nn.Identity(), "head is no Linear and no ungrouped Conv2d layer of this network"),
    ],
)
def test_a_network_that_it_does_not_fit_is_left_as_it_was(net, tuned, x, use, head, message):
    adapter = lora.extract(tuned, net, 1)
    net.head = head
    before, weights = net(x), copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message):
        use(net, adapter)
    assert torch.equal(net(x), before)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in net.state_dict().items())


def test_attached_elsewhere_it_comes_off_where_it_was(net, tuned, x):
    adapter, twin = lora.extract(tuned, net, 2), copy.deepcopy(net)
    before = net(x)
    lora.attach(net, adapter)
    moved = net(x)
    lora.attach(twin, adapter)
    assert torch.equal(net(x), before)
    assert torch.equal(twin(x), moved)
    lora.attach(twin, adapter)  # again is not twice
    assert torch.equal(twin(x), moved)
