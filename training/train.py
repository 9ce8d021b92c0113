"""Distil a diffusion model: into a TCD LoRA (Algorithm 2 of the paper), or with one of the other methods.

    python -m training.train --config_file demo/tcd.toml
    torchrun --nproc_per_node=2 -m training.train --config_file demo/tcd.toml

One network plays all three parts: with the LoRA off it is the teacher, with the LoRA on the student, and with the LoRA
on but without gradient the target. From Python: `run = prepare(options)`, then `train_step(run, step)` for each step.
"""

import logging
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tcd import lora

from . import data, options, plan, sharding
from .draws import generator
from .optim import go_to
from .options import Options
from .run import Run, prepare
from .save import configuration_path, save_configuration
from .saving import save_at_the_end, save_on_the_way, stop
from .stopping import Stop, StoppedError
from .watch import Log
from .workers import ElsewhereError, Workers

GO_ON = "run again with --resume auto to go on from the last saved state"


@dataclass(frozen=True)
class Result:
    """What a step came to: mean loss, norm of the gradient before it was scaled down, and learning rate."""

    loss: float
    norm: float
    lr: float


def batches(run: Run, step: int) -> Iterator[data.Batch]:
    """This process' batches of a step, one for each accumulation."""
    opts = run.opts
    for i in range(opts.gradient_accumulation_steps):
        begin = (run.workers.rank * opts.gradient_accumulation_steps + i) * opts.train_batch_size
        yield run.dataset.batch(step, run.batch, slice(begin, begin + opts.train_batch_size))


def loss_of(run: Run, batch: data.Batch) -> Tensor:
    """The loss of one batch: what is drawn for each sample, and the method's comparison."""
    opts, device = run.opts, run.models.device
    drawn = [generator(opts.seed, "draw", batch.number, place) for place in batch.places]
    noise = torch.stack([torch.randn(batch.latents.shape[1:], generator=one) for one in drawn])
    times = [torch.cat(each).to(device) for each in zip(*map(run.method.draw, drawn), strict=True)]
    spread = opts.guidance_max - opts.guidance_min
    w = torch.cat([opts.guidance_min + spread * torch.rand(1, generator=one) for one in drawn])
    roles = run.parts.roles(batch.conds, run.dataset.uncond, batch.sizes, w.to(device))
    return run.method.loss(roles, batch.latents.to(device), noise.to(device), tuple(times))


def gradient(run: Run, step: int) -> float:
    """Add up the gradients of a step, over accumulations and processes; returns the mean loss."""
    total = 0.0
    for batch in batches(run, step):
        torch.manual_seed(generator(run.opts.seed, "dropout", step, batch.places[0]).initial_seed())
        loss = loss_of(run, batch) / run.opts.gradient_accumulation_steps
        run.scaler.scale(loss).backward()
        total += loss.item()
    if not run.opts.fsdp:  # which has done so
        run.workers.mean_gradients(run.parts.weights)
    return run.workers.mean(total)


def train_step(run: Run, step: int) -> Result:
    """One optimizer step. Raises FloatingPointError for a gradient that is not finite."""
    weights, loss = run.parts.weights, gradient(run, step)
    run.scaler.unscale_(run.optimizer)
    norm = sharding.whole(nn.utils.clip_grad_norm_(weights, run.opts.max_grad_norm or math.inf)).item()
    if not math.isfinite(norm) and not run.scaler.is_enabled():  # the scaler skips such a step, and lowers its scale
        raise FloatingPointError(f"the gradient is not finite at step {step}: lower learning_rate")
    lr = run.optimizer.param_groups[0]["lr"]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    go_to(run.schedule, step + 1)
    run.optimizer.zero_grad(set_to_none=True)
    if run.opts.scale_weight_norms and run.parts.adapter:
        lora.scale_norms(run.parts.adapter, run.opts.scale_weight_norms)
    if run.parts.ema:
        run.parts.ema.update()
    return Result(loss, norm, lr)


def due(step: int, every_steps: int, every_epochs: int, epoch_steps: int) -> bool:
    """Whether something of every n steps or epochs is due after `step` steps."""
    return step > 0 and any(every and step % every == 0 for every in (every_steps, every_epochs * epoch_steps))


def look(run: Run, log: Log, step: int) -> None:
    """Sample pictures and the ODE error that are due after `step` steps. A run goes on without them if need be."""
    opts = run.opts
    if run.preview is None:
        return
    first = opts.sample_at_first and step == 0
    try:
        if first or due(step, opts.sample_every_n_steps, opts.sample_every_n_epochs, run.epoch_steps):
            log.picture(step, run.preview.sheet(step))
        if due(step, opts.ode_error_every_n_steps, 0, 1):
            log.row(step, {"ode_error": run.preview.ode_error(step)})
    except (OSError, torch.OutOfMemoryError) as error:
        logging.warning("nothing to see after step %d, the run goes on: %s", step, error)


def loop(run: Run) -> None:
    """All steps from the first on, or to the one in which a signal comes; the main process logs, looks and saves."""
    log = Log(run.opts, run.first, run.steps) if run.workers.main else None
    if log and not run.first:
        look(run, log, 0)
    steps = {"initial": run.first, "total": run.steps, "disable": not run.workers.main}
    with (
        closing(log) if log else nullcontext(),
        tqdm(range(run.first, run.steps), desc="distil", **steps) as bar,
        Stop() as told,
    ):
        for step in bar:
            result = train_step(run, step)
            if log:
                bar.set_postfix(log.add(step + 1, result.loss, result.norm, result.lr, run.batch))
                look(run, log, step + 1)
            save_on_the_way(run, step + 1)
            if run.workers.mean(bool(told.asked)) and step + 1 < run.steps:
                stop(run, step + 1, told.asked or signal.SIGTERM)  # which another process was sent


def train(opts: Options) -> Path:
    """Load, inject, loop { draw, teacher step, target, student, loss, backward, step }, save; returns the path.

    With `dry_run` everything is checked and planned, and the path is that of the resolved configuration.
    """
    workers = Workers.start()
    try:
        run = prepare(opts, workers)
        if workers.main:
            print("\n".join(plan.lines(run)))
            save_configuration(opts)
        if opts.dry_run:
            estimates = plan.estimate(run, lambda: gradient(run, run.first))
            if workers.main:
                print("\n".join(estimates))
            return configuration_path(opts)
        loop(run)
        path = save_at_the_end(run)
        if workers.main:
            print(f"wrote {path}")
        return path
    finally:
        workers.stop()


def main() -> None:
    """The command line: every expected failure is one line."""
    try:
        train(options.read())
    except (ValueError, FileNotFoundError, FloatingPointError, ElsewhereError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}\nwhere a disk is full or only read, make room or choose another output_dir; {GO_ON}")
    except torch.OutOfMemoryError as error:
        advice = "try gradient_checkpointing, mixed_precision bf16, a smaller train_batch_size or resolution"
        sys.exit(f"error: out of memory: {error}\n{advice}; {GO_ON}")
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        sys.exit(f"interrupted: {GO_ON}")


if __name__ == "__main__":
    main()
