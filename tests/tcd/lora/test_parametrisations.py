"""Every parametrisation against its definition, written out; then as an adapter: in the network, merged, in a file."""

import copy
import math
from itertools import product

import pytest
import torch
from lora_nets import CORES, SHAPES, parts_of, weight_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tcd import lora

LAYERS = {
    "linear": lambda: nn.Linear(6, 4),
    "point": lambda: nn.Conv2d(6, 4, 1),
    "conv": lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1),
}
CASES = [(kind, layer) for kind, layer in product(SHAPES, LAYERS) if kind not in CORES or layer == "conv"]
RANK, ALPHA = 2, 3.0


def core_product(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The sum over both ranks, term by term: core [m, n, *k], left [m, o], right [n, i] -> [o, i, *k]."""
    out = torch.zeros(left.shape[1], right.shape[1], *core.shape[2:])
    for m, n, o, i in product(*map(range, (*core.shape[:2], *out.shape[:2]))):
        out[o, i] += core[m, n] * left[m, o] * right[n, i]
    return out


def lora_truth(p: dict[str, Tensor], shape: torch.Size) -> Tensor:
    down, up = p["lora_down.weight"], p["lora_up.weight"].flatten(1)
    if "lora_mid.weight" in p:
        return core_product(p["lora_mid.weight"], up.T, down.flatten(1))
    out = torch.zeros(shape)
    for o, r in product(range(shape[0]), range(len(down))):
        out[o] += up[o, r] * down[r]
    return out


def loha_truth(p: dict[str, Tensor], shape: torch.Size) -> Tensor:
    if "hada_t1" in p:
        return core_product(p["hada_t1"], p["hada_w1_a"], p["hada_w1_b"]) * core_product(
            p["hada_t2"], p["hada_w2_a"], p["hada_w2_b"]
        )
    out = torch.zeros(shape[0], math.prod(shape[1:]))
    for o, i in product(range(out.shape[0]), range(out.shape[1])):
        first, second = (p[f"hada_w{n}_a"][o] @ p[f"hada_w{n}_b"][:, i] for n in (1, 2))
        out[o, i] = first * second
    return out.reshape(shape)


def lokr_truth(p: dict[str, Tensor], shape: torch.Size) -> Tensor:
    w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    o2, i2 = shape[0] // w1.shape[0], shape[1] // w1.shape[1]
    if "lokr_w2" in p:
        w2 = p["lokr_w2"]
    elif "lokr_t2" in p:
        w2 = core_product(p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
    else:
        w2 = (p["lokr_w2_a"] @ p["lokr_w2_b"]).reshape(o2, i2, *shape[2:])
    out = torch.zeros(shape)
    for o, i in product(range(shape[0]), range(shape[1])):
        out[o, i] = w1[o // o2, i // i2] * w2[o % o2, i % i2]
    return out


TRUTH = {"lora": lora_truth, "loha": loha_truth, "lokr": lokr_truth}


def truth(kind: str, parts: dict[str, Tensor], shape: torch.Size) -> Tensor:
    scale = 1.0 if kind == "lokr-whole-whole" else ALPHA / RANK
    return TRUTH[kind.split("-")[0]](parts, shape) * scale


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    """(kind, net of one layer, parts, the difference that they define, an input)."""
    kind, name = request.param
    torch.manual_seed(0)
    net = nn.Sequential(LAYERS[name]())
    shape = weight_of(net, "0").shape
    parts = parts_of(kind, shape, RANK, ALPHA)
    x = torch.randn(2, 6) if name == "linear" else torch.randn(2, 6, 5, 5)
    return kind, net, parts, truth(kind, parts, shape), x


def saved(path, *layers: dict[str, Tensor]):
    save_file({f"lora_unet_{n}.{part}": t for n, parts in enumerate(layers) for part, t in parts.items()}, path)
    return path


def shifted(net: nn.Module, delta: Tensor) -> nn.Module:
    """The network with its weight moved by `delta`."""
    moved = copy.deepcopy(net)
    with torch.no_grad():
        weight_of(moved, "0").add_(delta)
    return moved


def test_the_difference_is_the_defined_one(case):
    kind, net, parts, wanted, _ = case
    path = lora.layer_from(parts, net[0])
    assert wanted.abs().max() > 0.01
    assert type(path) is lora.PARAMETRISATIONS[{"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr"}[kind.split("-")[0]]]
    torch.testing.assert_close(path.delta(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(CORES))
@pytest.mark.parametrize("name", ["linear", "point"])
def test_a_core_without_a_kernel_is_the_defined_difference(kind, name):
    layer = LAYERS[name]()
    parts = parts_of(kind, layer.weight.shape, 3, ALPHA)
    wanted = TRUTH[kind.split("-")[0]](parts, layer.weight.shape) * ALPHA / 3
    torch.testing.assert_close(lora.layer_from(parts, layer).delta(), wanted, rtol=0, atol=1e-6)


def test_the_adapter_computes_what_moved_weights_would(case, tmp_path):
    _, net, parts, delta, x = case
    before, wanted = net(x), shifted(net, delta)(x)
    adapter = lora.load(saved(tmp_path / "a", parts), net)
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=1e-5)
    with lora.toggle(adapter, False):
        assert torch.equal(net(x), before)
    adapter.remove()
    assert torch.equal(net(x), before)


def test_merged_the_weights_are_moved(case, tmp_path):
    _, net, parts, delta, _ = case
    wanted = net[0].weight + 0.5 * delta
    lora.merge(net, lora.load(saved(tmp_path / "a", parts), net), 0.5)
    torch.testing.assert_close(net[0].weight, wanted, rtol=0, atol=1e-6)


def test_it_stacks_upon_a_plain_lora(case, tmp_path):
    _, net, parts, delta, x = case
    plain = parts_of("lora", net[0].weight.shape, RANK, ALPHA, seed=5)
    wanted = shifted(net, delta + truth("lora", plain, net[0].weight.shape))(x)
    for name, layer in (("a", plain), ("b", parts)):
        lora.load(saved(tmp_path / name, layer), net)
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=1e-5)


def test_every_factor_gets_a_gradient(case, tmp_path):
    _, net, parts, _, x = case
    adapter = lora.load(saved(tmp_path / "a", parts), net)
    net(x).square().sum().backward()
    assert len(list(adapter.parameters())) == len(parts) - 1  # alpha is no parameter
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapter.parameters())


def test_saved_again_it_is_the_same_file(case, tmp_path):
    _, net, parts, _, _ = case
    lora.save(tmp_path / "b", lora.load(saved(tmp_path / "a", parts), net), dtype=torch.float32)
    first, second = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_factor_that_does_not_fit_is_named(case):
    """Of each factor one axis is made longer, or taken away."""
    _, net, parts, _, _ = case
    for part in parts.keys() - {"alpha"}:
        for odd in (F.pad(parts[part], (0, 1)), parts[part][0], torch.ones(()), parts[part][..., :0]):
            with pytest.raises(ValueError, match=r"has shape .*, this layer wants \("):
                lora.layer_from(parts | {part: odd}, net[0])


def test_a_missing_factor_is_named(case):
    """Whatever is left makes no layer, but without their cores factors are of another shape."""
    _, net, parts, _, _ = case
    for part in parts.keys() - {"alpha"}:
        rest = {name: tensor for name, tensor in parts.items() if name != part}
        with pytest.raises(ValueError, match=r"which make no whole layer of LoRA lora_down.weight|has shape"):
            lora.layer_from(rest, net[0])


def test_without_alpha_the_scale_is_1(case):
    kind, net, parts, wanted, _ = case
    path = lora.layer_from({name: tensor for name, tensor in parts.items() if name != "alpha"}, net[0])
    once = wanted if kind == "lokr-whole-whole" else wanted * RANK / ALPHA
    torch.testing.assert_close(path.delta(), once, rtol=0, atol=1e-6)


def test_half_precision_layers_keep_their_type(case, tmp_path):
    _, net, parts, _, x = case
    net = net.bfloat16()
    before = net(x.bfloat16())
    lora.load(saved(tmp_path / "a", parts), net)
    assert net(x.bfloat16()).dtype == torch.bfloat16
    assert not torch.equal(net(x.bfloat16()), before)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("dora_scale", "DoRA"),
        ("lora_magnitude_vector.weight", "DoRA"),
        ("oft_blocks", "OFT or BOFT"),
        ("oft_diag", "OFT or BOFT"),
        ("boft_R", "BOFT"),
        ("a1.weight", "GLoRA"),
        ("b2.weight", "GLoRA"),
    ],
)
def test_what_is_not_supported_is_named(part, name):
    layer = nn.Linear(6, 4)
    parts = parts_of("lora", layer.weight.shape) | {part: torch.ones(4)}
    with pytest.raises(ValueError, match=rf"has {part}: {name} is not supported, only LoRA, LoHa, LoKr"):
        lora.layer_from(parts, layer)


@pytest.mark.parametrize("alpha", [torch.ones(2), torch.tensor(math.nan), torch.tensor(math.inf), torch.ones(0)])
def test_alpha_must_be_a_number(alpha):
    layer = nn.Linear(6, 4)
    with pytest.raises(ValueError, match="alpha must be one finite number, got"):
        lora.layer_from(parts_of("lora", layer.weight.shape) | {"alpha": alpha}, layer)


def test_whole_numbers_are_an_alpha_and_no_factor():
    layer = nn.Linear(6, 4)
    parts = parts_of("lora", layer.weight.shape)
    assert lora.layer_from(parts | {"alpha": torch.tensor(4)}, layer).scale == 2
    with pytest.raises(ValueError, match=r"lora_up.weight has torch.int8, not a floating-point type"):
        lora.layer_from(parts | {"lora_up.weight": torch.ones(4, 2, dtype=torch.int8)}, layer)
