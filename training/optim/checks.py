"""Whether optimizer and schedule work, told by trying them."""

import warnings

import torch
from torch import nn

from ..options import Options
from .optimizers import optimizer, refusals
from .schedules import schedule

SELF_TUNING = ("prodigyopt", "dadaptation")  # libraries for whose optimizers the learning rate is only a factor


def check(opts: Options) -> None:
    """Raises ValueError for what would fail in training, by one step of a small weight on the device in use.

    The schedule is tried where `max_train_steps` counts; epochs have to be turned into steps first. Warns of a learning
    rate that makes no sense for the optimizer.
    """
    weight = nn.Parameter(torch.zeros(2, 2, device="cuda" if torch.cuda.is_available() else "cpu"))
    weight.grad = torch.ones_like(weight)
    made = optimizer([weight], opts)
    with refusals(opts):  # some need a closure, sparse gradients or a mode of their own
        made.step()
    if not opts.max_train_epochs:
        schedule(made, opts, opts.max_train_steps)
    if type(made).__module__.partition(".")[0] in SELF_TUNING and opts.learning_rate < 0.1:
        text = f"{opts.optimizer_type} finds the learning rate: learning_rate is a factor of it, 1 as a rule"
        warnings.warn(f"{text}; got {opts.learning_rate}", stacklevel=2)
