"""Checkpointed and compiled blocks: the same outputs and gradients, of every family that can be trained."""

import shutil

import pytest
import torch
from lora_nets import plain
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from trials import close, gradients, trial_of

from tcd import lora
from training import checkpointing

pytestmark = [pytest.mark.host, pytest.mark.slow]

COMPILER = shutil.which("g++") or shutil.which("clang++")
COUNTS = {"sd15": 15, "sd3": 2, "flux": 3, "lumina2": 4}


@pytest.fixture(params=COUNTS)
def trial(request):
    return trial_of(request.param)


@pytest.mark.parametrize("merges", [False, True])
def test_checkpointed_gradients_are_the_same(trial, merges):
    trial.adapter.merges = merges
    wanted = gradients(trial)
    assert sum(bool(slope.any()) for slope in wanted) > 0.8 * len(wanted)
    assert (
        checkpointing.checkpoint_blocks(trial.net) == checkpointing.checkpoint_blocks(trial.net) == COUNTS[trial.name]
    )
    close(gradients(trial), wanted)


def test_the_gradient_is_that_of_the_loss(trial):
    """Along one direction of the LoRA's numbers, by differences; in float64 that is good to many digits."""
    checkpointing.checkpoint_blocks(trial.net)
    trial.net.double()
    trial.adapter.double()
    parameters = list(trial.adapter.parameters())
    loss = trial.evaluate().square().mean()
    slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
    generator = torch.Generator().manual_seed(2)
    ways = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    found = []
    with torch.no_grad():
        for step in (1e-4, -2e-4):
            for parameter, way in zip(parameters, ways, strict=True):
                parameter += step * way
            found.append(float(trial.evaluate().square().mean()))
    wanted = (found[0] - found[1]) / 2e-4
    assert float(sum((slope * way).sum() for slope, way in zip(slopes, ways, strict=True))) == pytest.approx(
        wanted, rel=1e-4
    )


def test_a_checkpointed_block_keeps_less(trial):

    def kept() -> int:
        sizes: dict[int, int] = {}
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.update({t.untyped_storage().data_ptr(): t.nbytes}), t)[1], lambda t: t
        )
        with keep:
            trial.evaluate()
        return sum(sizes.values())

    before = kept()
    checkpointing.checkpoint_blocks(trial.net)
    assert kept() < 0.7 * before


def test_dropout_is_drawn_once_for_both_evaluations_of_a_block():
    found = []
    for change in (lambda net: None, checkpointing.checkpoint_blocks):
        trial = trial_of("sd15", dropout=0.3, rank_dropout=0.2, module_dropout=0.1)
        change(trial.net)
        torch.manual_seed(2)
        found.append(gradients(trial))
    close(*found)


@pytest.mark.filterwarnings("ignore")  # of torch.compile's own
@pytest.mark.parametrize("trial", ["sd15"], indirect=True)
def test_a_compiled_network_computes_the_same_from_three_graphs(trial):
    """As teacher, target and student; with a backend that needs no compiler. A second step compiles nothing more."""
    wanted = gradients(trial)
    torch.compiler.reset()
    graphs = CompileCounterWithBackend("eager")
    trial.net.compile(backend=graphs)
    for _ in range(2):
        close(gradients(trial), wanted, 1e-4)
        assert graphs.frame_count == 3


@pytest.mark.filterwarnings("ignore")  # of torch.compile's own
@pytest.mark.skipif(not COMPILER, reason="torch.compile needs a C++ compiler on the CPU, and there is none")
def test_a_compiled_layer_with_a_lora_computes_the_same():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU()).requires_grad_(False)
    adapter = lora.inject(net, 2)
    for path in plain(adapter):
        nn.init.normal_(path.up, std=0.1)
    x = torch.randn(2, 4, 6, 6)

    def found() -> list[Tensor]:
        with torch.no_grad(), lora.toggle(adapter, False):
            teacher = net(x)
        out = net(x)
        return [teacher, out.detach(), *torch.autograd.grad((out - teacher).square().sum(), list(adapter.parameters()))]

    wanted = found()
    net.compile()
    close(found(), wanted, 1e-4)


def test_a_network_without_known_blocks_is_refused():
    with pytest.raises(ValueError, match="Linear has none of the blocks that are known: BasicTransformerBlock, "):
        checkpointing.checkpoint_blocks(nn.Linear(2, 2))
