"""What test_workers.py has torchrun start, in two processes; with `fail`, the second one ends early, as by an error."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training.workers import ElsewhereError, Workers


class Network(nn.Module):
    """Weights of several shapes and dtypes, one stored in another order, and one layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.linear = nn.Linear(16, 2).double()
        self.unused = nn.Linear(2, 2)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).flatten(1).double()).square().mean()


def check_gradients(workers: Workers) -> None:
    """Two halves of a batch give the gradients of the whole one; an unused weight gets none."""
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    whole, split = Network(), Network()
    whole.loss(x).backward()
    split.loss(x[workers.rank :: workers.world]).backward()
    workers.mean_gradients(split.parameters())
    for wanted, got in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad)
    assert split.unused.weight.grad is None


def check_missing_gradients(workers: Workers) -> None:
    """A gradient that only one process has counts as zeros in the other."""
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.ones(3) if workers.rank == 1 else None
    workers.mean_gradients([weight])
    torch.testing.assert_close(weight.grad, torch.full((3,), 0.5))


def check_broadcast(workers: Workers) -> None:
    weights = [nn.Parameter(torch.full((2, 3), float(workers.rank))), torch.tensor(workers.rank)]
    workers.broadcast(weights)
    assert all(not weight.any() for weight in weights)


def check_first(workers: Workers, file: Path) -> None:
    """The others find what process 0 made, and learn of its failure."""
    with workers.first():
        if workers.main:
            file.write_text("made")
        assert file.read_text() == "made"
    kind, text = (
        (OSError, "^disk full$") if workers.main else (ElsewhereError, r"^process 0 failed: OSError.*disk full")
    )
    with pytest.raises(kind, match=text), workers.first():
        raise OSError("disk full")


def main(folder: Path, fail: bool) -> None:
    workers = Workers.start()
    assert (workers.world, workers.main) == (2, workers.rank == 0)
    if fail and workers.rank == 1:
        sys.exit("error: no more pictures")
    workers.barrier()
    assert workers.mean(1 + workers.rank) == 1.5
    check_gradients(workers)
    check_missing_gradients(workers)
    check_broadcast(workers)
    check_first(workers, folder / "cache")
    (folder / f"{workers.rank}-of-{workers.world}").touch()
    workers.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), "fail" in sys.argv)
