"""The parts that one network plays, and the running average of what is trained."""

import pytest
import torch
from torch import nn

from training.network import Ema


def test_a_running_average_follows_the_parameters():
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema([weight], 0.9)
    weight.data.fill_(1.0)
    ema.update()
    ema.update()
    torch.testing.assert_close(ema.average[0], torch.full((3,), 1 - 0.9**2))


def test_the_network_computes_with_the_average_within_a_with_alone():
    layer = nn.Linear(2, 2, bias=False)
    ema, x = Ema(list(layer.parameters()), 0.5), torch.ones(1, 2)
    before = layer(x)
    layer.weight.data += 1
    after = layer(x)
    with ema.applied():
        assert torch.equal(layer(x), before)
    assert torch.equal(layer(x), after)
    with pytest.raises(RuntimeError, match="failed"), ema.applied():
        raise RuntimeError("failed")
    assert torch.equal(layer(x), after)
