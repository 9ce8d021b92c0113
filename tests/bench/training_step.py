"""Time and memory of an optimizer step of the trainer, against tests/plain_trainer.py: docs/benchmarks.md.

    python3 dev.py bench training
    python3 dev.py bench compiled  # which takes minutes to compile the network

Both distil the tiny model with TCF(1) in the same precision, from the same draws, with as many layers of LoRA of the
same rank, and with PyTorch's own choice of attention. They take turns, so that whatever else the machine does falls on
both; medians and the median of the ratios of each turn are printed. Memory is what comes after the model is loaded: a
second network, the LoRA and the optimizer count: of tensors their highest sum; of a process of its own the growth of
its highest resident set, where a compiled network has the compiler too.
"""

import gc
import resource
import statistics
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests' own helpers

from plain_trainer import Drawn, PlainTrainer

from training import checkpointing, host, optim
from training.methods import METHODS
from training.network import Parts
from training.options import Options

CHECKPOINT = Path(__file__).resolve().parents[2] / "demo" / "tiny.safetensors"
RANK, LR, ROUNDS, MEMORY_STEPS = 16, 1e-4, 15, 3
BF16 = {"mixed_precision": "bf16"}
# What is timed -> the options that it takes.
OURS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, checkpointed": {"gradient_checkpointing": True},
    "bf16": BF16,
    "bf16, checkpointed": {**BF16, "gradient_checkpointing": True},
    "float32, compiled": {"torch_compile": True},
    "bf16, compiled": {**BF16, "torch_compile": True},
}
COMPILED = [name for name, options in OURS.items() if "torch_compile" in options]
ROWS = {  # of each table: what, and batch
    "training": [(name, batch) for batch in (16, 32) for name in OURS if name not in COMPILED],
    "compiled": [(name, 16) for name in COMPILED],
}
MIB_A_UNIT = 2**-20 if sys.platform == "darwin" else 2**-10  # of ru_maxrss


class Trainer(Protocol):
    def step(self, drawn: Drawn) -> float: ...


class OurTrainer:
    """A step of training/train.py, without its data."""

    def __init__(self, models: host.Models, conds: tuple[host.Cond, host.Cond], opts: Options):
        self.opts = opts
        self.parts = Parts(models, self.opts)
        self.method = METHODS["tcd"](self.opts, models.sched)
        self.optimizer = optim.optimizer(self.parts.weights, self.opts)
        self.cond, self.uncond = conds
        if opts.gradient_checkpointing:
            checkpointing.checkpoint_blocks(models.unet)
        if opts.torch_compile:
            models.unet.compile()

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


Loaded = tuple[host.Models, tuple[host.Cond, host.Cond]]


def options(name: str) -> Options:
    return Options(
        pretrained_model_name_or_path=str(CHECKPOINT), network_dim=RANK, learning_rate=LR, ends=1, **OURS[name]
    )


def load(opts: Options) -> Loaded:
    """The tiny model and the conditions, with and without a prompt."""
    models = host.load(CHECKPOINT, "demo.tiny:load", host.DTYPES[opts.mixed_precision])
    return models, (host.encode_text(models, "red heart"), host.encode_text(models, ""))


def made(opts: Options, plain: bool, loaded: Loaded) -> Trainer:
    """Our trainer, or the plain one of the same precision."""
    models, conds = loaded
    torch.manual_seed(0)
    if plain:
        dtype = host.DTYPES[opts.mixed_precision]
        return PlainTrainer(models.unet, 1 / (1 + models.sampling.sigmas.square()), RANK, LR, dtype)
    return OurTrainer(host.place(models), conds, opts)


def resident() -> float:
    """The highest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MIB_A_UNIT


def grown(name: str, plain: bool, batch: int) -> None:
    """Print the MiB that this process grows by in some steps."""
    loaded, before = load(options(name)), resident()
    trainer, drawn = made(options(name), plain, loaded), draw(loaded[1], batch)
    for _ in range(MEMORY_STEPS):
        trainer.step(drawn)
    print(resident() - before)


def memory(name: str, plain: bool, batch: int) -> float:
    """What `grown` prints in a process of its own."""
    command = [sys.executable, __file__, name, str(int(plain)), str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def highest(recorded: profile) -> float:
    """The highest sum of the tensors that were allocated meanwhile, in MiB."""
    profiler: Any = recorded.profiler
    events = profiler.kineto_results.events()
    return max(accumulate(event.nbytes() for event in events if event.name() == "[memory]")) / 2**20


def started(name: str, plain: bool, batch: int) -> tuple[Trainer, Drawn, float, float]:
    """A trainer after its first steps, what it draws, its first loss and the most MiB that its tensors took."""
    loaded = load(options(name))
    drawn = draw(loaded[1], batch)
    gc.collect()  # lest the row before is freed meanwhile, and subtracted
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        trainer = made(options(name), plain, loaded)
        losses = [trainer.step(drawn) for _ in range(MEMORY_STEPS)]
    return trainer, drawn, losses[0], highest(recorded)


def seconds(trainer: Trainer, drawn: Drawn) -> float:
    began = time.perf_counter()
    trainer.step(drawn)
    return time.perf_counter() - began


def row(name: str, batch: int, resident: tuple[float, float]) -> None:
    """One line of the table."""
    torch.compiler.reset()
    plain, ours = (started(name, is_plain, batch) for is_plain in (True, False))  # ours last: it chooses attention
    near = 1e-3 if OURS[name].get("mixed_precision", "no") == "no" else 1e-2  # bf16 has eight bits
    assert abs(ours[2] - plain[2]) < near * plain[2], f"not the same step: losses {ours[2]}, {plain[2]}"
    both, taken = (ours, plain), []
    for turn in range(ROUNDS):  # each goes first every other turn
        order = (0, 1) if turn % 2 else (1, 0)
        times = {i: seconds(*both[i][:2]) for i in order}
        taken.append((times[0], times[1]))
    us, them = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(a / b for a, b in taken)
    tensors = f"{ours[3]:.0f} | {plain[3]:.0f} | {ours[3] / plain[3]:.2f}"
    grew = f"{resident[0]:.0f} | {resident[1]:.0f} | {resident[0] / resident[1]:.2f}"
    print(f"| {name}, batch {batch} | {us:.3f} | {them:.3f} | {ratio:.2f} | {tensors} | {grew} |", flush=True)


def table(rows: list[tuple[str, int]]) -> None:
    print(f"{torch.get_num_threads()} threads, medians of {ROUNDS} steps\n")
    print("| what | s | plain | ratio | tensors, MiB | plain | ratio | process, MiB | plain | ratio |")
    print("| --- |" + " ---: |" * 9)
    # Before this process grows itself: its children would inherit the highest resident set
    grew = {(name, batch): (memory(name, False, batch), memory(name, True, batch)) for name, batch in rows}
    for name, batch in rows:
        row(name, batch, grew[name, batch])


def main(arguments: list[str]) -> None:
    """A table by its name; or, as `memory` asks, what one trainer grows by."""
    if len(arguments) == 3:
        grown(arguments[0], bool(int(arguments[1])), int(arguments[2]))
    else:
        table(ROWS[arguments[0] if arguments else "training"])


if __name__ == "__main__":
    main(sys.argv[1:])
