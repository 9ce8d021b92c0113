"""A run, made ready: everything that can be checked is checked here, before the first step."""

from dataclasses import dataclass
from pathlib import Path

import torch

from . import checkpointing, data, host, sharding
from .draws import generator
from .methods import METHODS, Method
from .network import Parts
from .optim import check as check_optimizer
from .optim import optimizer as make_optimizer
from .optim import schedule as make_schedule
from .options import Options
from .save import Saver, writable
from .state import State
from .watch import Log, Preview
from .workers import Workers


@dataclass
class Run:
    """Everything that a training step needs, and what watches and saves it."""

    opts: Options
    workers: Workers
    models: host.Models
    parts: Parts
    method: Method
    dataset: data.Dataset
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    saver: Saver
    state: State
    preview: Preview | None
    first: int = 0  # the step to begin with

    @property
    def batch(self) -> int:
        """Samples in one optimizer step, over all processes."""
        return batch_of(self.opts, self.workers)

    @property
    def epoch_steps(self) -> int:
        return self.dataset.batches_per_epoch(self.batch)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return steps_of(self.opts, self.dataset, self.batch)


def batch_of(opts: Options, workers: Workers) -> int:
    return opts.train_batch_size * opts.gradient_accumulation_steps * workers.world


def steps_of(opts: Options, dataset: data.Dataset, batch: int) -> int:
    return opts.max_train_epochs * dataset.batches_per_epoch(batch) or opts.max_train_steps


def check(opts: Options, workers: Workers) -> None:
    """What can be told before any model is loaded. Raises ValueError."""
    sharding.check(opts, workers)
    check_optimizer(opts)
    Log.check(opts)
    Preview.check(opts)
    if workers.main:
        writable(Path(opts.output_dir))


def prepare(opts: Options, workers: Workers | None = None) -> Run:
    """Load the teacher, encode the data, make student and optimizer, and go back to the state that --resume names.

    Raises ValueError or FileNotFoundError for everything that would stop the run later.
    """
    workers = workers or Workers.start()
    with workers.first():
        check(opts, workers)
        found = data.survey(opts)
    models = host.load_teacher(opts)
    method = METHODS[opts.method](opts, models.sched)
    method.draw(generator(opts.seed))  # raises now for times that the schedule does not have
    torch.manual_seed(opts.seed)
    parts = Parts(models, opts)
    with workers.first():
        dataset = data.load(models, opts, parts, found)
    preview = Preview(models, parts, dataset.uncond, opts) if opts.sample_prompts and workers.main else None
    if opts.cache_text_encoder_outputs:
        models = host.release(models)
    device = host.place(models).device
    if opts.gradient_checkpointing:
        checkpointing.checkpoint_blocks(parts.student_net.unet)
    if opts.torch_compile:
        parts.student_net.unet.compile()
    if opts.fsdp:
        sharding.shard(parts, workers)
    parts.place(device)
    if not opts.fsdp:  # whose students come from one file
        workers.broadcast(parts.weights)
    run = assemble(opts, workers, models, parts, method, dataset, preview)
    run.first = run.state.resume()
    if run.first > run.steps:
        raise ValueError(f"the state is one after {run.first} steps, but only {run.steps} are asked for")
    return run


def assemble(
    opts: Options,
    workers: Workers,
    models: host.Models,
    parts: Parts,
    method: Method,
    dataset: data.Dataset,
    preview: Preview | None,
) -> Run:
    """The run with its optimizer, and what saves both."""
    optimizer = make_optimizer(parts.weights, opts)
    schedule = make_schedule(optimizer, opts, steps_of(opts, dataset, batch_of(opts, workers)))
    scaler = torch.amp.GradScaler(models.device.type, enabled=opts.mixed_precision == "fp16")
    state = State(opts, parts, optimizer, schedule, scaler)
    saver = Saver(models, parts, opts)
    return Run(opts, workers, models, parts, method, dataset, optimizer, schedule, scaler, saver, state, preview)
