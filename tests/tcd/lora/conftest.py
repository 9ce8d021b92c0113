"""A network and an input for it."""

import pytest
import torch
from lora_nets import Net
from torch import Tensor


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
