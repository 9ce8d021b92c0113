"""The parts that one network plays: teacher, student and target.

With a LoRA there is one set of weights: the LoRA off is the teacher, on the student, on without gradient the target. In
a full fine-tuning the student is a copy. A running average for the target is a second set of what is trained alone.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, autocast, nn

import tcd
from tcd import lora

from . import adapters, recompute, sharding
from .host import DTYPES, Cond, Models, Network, Size
from .methods import Roles
from .options import Options


class Ema:
    """A running average of parameters: average = decay average + (1 - decay) parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.parameters, self.decay = list(parameters), decay
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        for average, parameter in zip(self.average, self.parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the `with` the network computes with the average: storages change places, nothing is copied."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self) -> None:
        for i, parameter in enumerate(self.parameters):
            if sharding.is_shared(parameter):
                sharding.exchange(parameter, self.average[i])
            else:
                parameter.data, self.average[i] = self.average[i], parameter.data


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within the `with` no part of the module drops anything; after, each is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class Parts:
    """Teacher, student and target of one model. What is trained is what `trained` holds."""

    def __init__(self, models: Models, opts: Options):
        self.opts, self.sched, self.kind = opts, models.sched, models.kind
        self.adapter: lora.Lora | None = None
        student = models.unet
        if opts.full_finetune:
            student = copy.deepcopy(models.unet).requires_grad_(True)  # in float32, as `load_teacher` loads for it
            models.unet.to(DTYPES[opts.mixed_precision])
        else:
            self.adapter = adapters.make(models.unet, opts)
            self.adapter.merges = opts.mixed_precision == "no" and not opts.torch_compile  # which fuses by itself
        # A block that is checkpointed keeps nothing, and a compiled network what its partitioner chooses
        self.keeps_less = bool(self.adapter) and not (opts.gradient_checkpointing or opts.torch_compile)
        if self.keeps_less:
            recompute.prepare(student)
        self.net = Network(models, opts.guidance_scale)
        self.student_net = Network(models, opts.guidance_scale, student)
        self.trained = nn.ModuleDict({"lora": self.adapter} if self.adapter else {"unet": student})
        self.hearing: tcd.TargetTimeNet | None = None
        if opts.tcf == "s+":
            self.hearing = adapters.target_time(student, self.adapter)
            self.trained["target_time"] = self.hearing.embed
        self.ema: Ema | None = None
        self.place(models.device)

    def place(self, device: torch.device) -> None:
        """Move what is trained to the device; a running average begins here."""
        self.trained.to(device)
        self.ema = Ema(self.weights, self.opts.ema_decay) if self.opts.ema_decay else None

    @property
    def weights(self) -> list[nn.Parameter]:
        """What the optimizer changes."""
        return list(self.trained.parameters())

    def switched(self, on: bool) -> AbstractContextManager:
        """The network as student or, off, as teacher."""
        return lora.toggle(self.adapter, on) if self.adapter else nullcontext()

    def precision(self, device: torch.device) -> AbstractContextManager:
        """A student whose own weights are trained, in float32, computes in the asked for precision."""
        if self.adapter or self.opts.mixed_precision == "no":
            return nullcontext()
        return autocast(device.type, DTYPES[self.opts.mixed_precision])

    def kept(self) -> AbstractContextManager:
        """What autograd keeps of a network whose own weights are frozen: not what is cheap to compute again."""
        return recompute.keeping_less() if self.keeps_less else nullcontext()

    def told(self, s: Tensor) -> AbstractContextManager:
        """Tell the network of TCF(S+) its target time."""
        return self.hearing.told(s) if self.hearing else nullcontext()

    def teacher(self, conds: Sequence[Cond], uncond: Cond, sizes: Sequence[Size], w: Tensor | float) -> tcd.Predict:
        """The guided network without the LoRA, both conditions in one pass."""

        def both(x: Tensor, t: Tensor, conds: list[Cond], sizes: list[Size]) -> Tensor:
            with self.switched(False):
                return self.net(x, t, conds, sizes)

        cond = {"conds": list(conds), "sizes": list(sizes)}
        none = {"conds": [uncond] * len(conds), "sizes": list(sizes)}
        return tcd.as_x0(tcd.guided_net(both, cond, none, w), self.sched, self.kind)

    def student(self, conds: Sequence[Cond], sizes: Sequence[Size]) -> tcd.Predict:
        """The network with what is trained."""

        def net(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
            with self.switched(True), self.precision(x.device), self.told(s), self.kept():
                return self.student_net(x, t, conds, sizes)

        return tcd.as_x0(net, self.sched, self.kind)

    def target(self, conds: Sequence[Cond], sizes: Sequence[Size]) -> tcd.Predict:
        """The student, or its running average; without dropout."""
        predict = self.student(conds, sizes)

        def averaged(x: Tensor, t: tcd.Time, s: tcd.Time | None = None) -> Tensor:
            with self.ema.applied() if self.ema else nullcontext(), evaluating(self.trained):
                return predict(x, t, s)

        return averaged

    def roles(self, conds: Sequence[Cond], uncond: Cond, sizes: Sequence[Size], w: Tensor) -> Roles:
        """The predictions for one batch; w [B]."""

        def teacher_of(rows: Tensor) -> tcd.Predict:
            chosen = rows.tolist()
            return self.teacher([conds[i] for i in chosen], uncond, [sizes[i] for i in chosen], w[rows])

        everyone = self.teacher(conds, uncond, sizes, w)
        return Roles(self.student(conds, sizes), self.target(conds, sizes), everyone, teacher_of)
