"""Time and memory of an optimizer step of the trainer, against tests/plain_trainer.py: docs/benchmarks.md.

    python3 dev.py bench training

Both distil the tiny model with TCF(1) in float32, from the same draws, with as many layers of LoRA of the same rank,
and with PyTorch's own choice of attention. They take turns, so that whatever else the machine does falls on both; the
medians and the median of the ratios of each turn are printed. Memory is what a process of its own grows by after the
model is loaded: the highest resident set, which counts the second network, the LoRA and the optimizer too.
"""

import copy
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests' own helpers

from plain_trainer import Drawn, PlainTrainer

from training import checkpointing, host, optim, options
from training.methods import METHODS
from training.network import Parts

CHECKPOINT = Path(__file__).resolve().parents[2] / "demo" / "tiny.safetensors"
RANK, LR, ROUNDS, MEMORY_STEPS = 16, 1e-4, 15, 3
OURS, BATCHES = ("ours", "checkpointed"), (16, 32)
MIB_A_UNIT = 2**-20 if sys.platform == "darwin" else 2**-10  # of ru_maxrss


class Trainer(Protocol):
    def step(self, drawn: Drawn) -> float: ...


class OurTrainer:
    """A step of training/train.py, without its data."""

    def __init__(self, models: host.Models, conds: tuple[host.Cond, host.Cond], checkpointed: bool):
        self.opts = options.Options(
            pretrained_model_name_or_path=str(CHECKPOINT), network_dim=RANK, learning_rate=LR, ends=1
        )
        self.parts = Parts(models, self.opts)
        self.method = METHODS["tcd"](self.opts, models.sched)
        self.optimizer = optim.optimizer(self.parts.weights, self.opts)
        self.cond, self.uncond = conds
        if checkpointed:
            checkpointing.checkpoint_blocks(models.unet)

    def step(self, drawn: Drawn) -> float:
        batch = len(drawn.latents)
        conds, sizes = [self.cond] * batch, [host.Size(128, 128, 0, 0, 128, 128)] * batch
        roles = self.parts.roles(conds, self.uncond, sizes, drawn.w)
        loss = self.method.loss(roles, drawn.latents, drawn.noise, (drawn.t, drawn.n, drawn.m))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parts.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def draw(conds: tuple[host.Cond, host.Cond], batch: int) -> Drawn:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, batch, 4, 16, 16, generator=generator)
    t = torch.randint(20, 1000, (batch,), generator=generator).float()
    m = ((t - 20) * torch.rand(batch, generator=generator)).floor()
    context, uncond = (cond.cross.expand(batch, -1, -1) for cond in conds)
    return Drawn(latents, noise, context, uncond, t, t - 20, m, 2 + 12 * torch.rand(batch, generator=generator))


def made(name: str, models: host.Models, conds: tuple[host.Cond, host.Cond]) -> Trainer:
    """A trainer by name, on a network of its own that starts with the same weights."""
    torch.manual_seed(0)
    if name == "plain":
        alphas_cumprod = 1 / (1 + models.sampling.sigmas.square())
        return PlainTrainer(models.unet, alphas_cumprod, RANK, LR)
    return OurTrainer(host.place(models), conds, name == "checkpointed")


def load() -> tuple[host.Models, tuple[host.Cond, host.Cond]]:
    models = host.load(CHECKPOINT, "demo.tiny:load")
    torch.backends.cuda.enable_flash_sdp(True)
    return models, (host.encode_text(models, "red heart"), host.encode_text(models, ""))


def grown(name: str, batch: int) -> None:
    """Print the MiB that this process grows by in some steps."""
    models, conds = load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer, drawn = made(name, models, conds), draw(conds, batch)
    for _ in range(MEMORY_STEPS):
        trainer.step(drawn)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * MIB_A_UNIT)


def memory(name: str, batch: int) -> float:
    command = [sys.executable, __file__, name, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def seconds(trainer: Trainer, drawn: Drawn) -> float:
    began = time.perf_counter()
    trainer.step(drawn)
    return time.perf_counter() - began


def row(name: str, batch: int, ours: float, theirs: float) -> None:
    """One line of the table; `ours` and `theirs` are the memory in MiB."""
    pairs, trainers = [], []
    for which in (name, "plain"):
        models, conds = load()
        trainers.append((made(which, models, conds), draw(conds, batch)))
    losses = [trainer.step(copy.deepcopy(drawn)) for trainer, drawn in trainers]
    assert abs(losses[0] - losses[1]) < 1e-3 * losses[1], f"not the same step: losses {losses}"
    for turn in range(ROUNDS):  # each goes first every other turn
        taken = [seconds(*trainers[i]) for i in ((0, 1) if turn % 2 else (1, 0))]
        pairs.append(taken if turn % 2 else taken[::-1])
    us, them = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    took = f"{us:.3f} | {them:.3f} | {ratio:.2f}"
    print(f"| {name}, batch {batch} | {took} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |", flush=True)


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {ROUNDS} steps")
    print("| what | ours, s | plain, s | ratio | ours, MiB | plain, MiB | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    # Before this process grows itself: its children would inherit the highest resident set
    sizes = {(name, batch): memory(name, batch) for name in ("plain", *OURS) for batch in BATCHES}
    for batch in BATCHES:
        for name in OURS:
            row(name, batch, sizes[name, batch], sizes["plain", batch])


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else grown(sys.argv[1], int(sys.argv[2]))
