"""LoRA files as they are sampled: with what they say of themselves, and on the network that they adapt."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import tcd
from tcd import embed, lora

from ..host import Cond, Models, Network, Size
from ..metadata import GAMMA
from ..network import Parts
from ..options import Options
from ..options.checks import check_name, is_file


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file, and the gamma and trajectory consistency function that it was distilled for."""

    name: str
    path: Path
    gamma: float
    tcf: str


def gamma_of(metadata: Mapping[str, str]) -> float:
    """What the file was distilled for. Raises ValueError for a gamma that no sampler takes."""
    text = metadata.get("tcd.gamma")
    if text is None:
        return GAMMA.get(metadata.get("tcd.method", "tcd"), GAMMA["tcd"])
    try:
        gamma = float(text)
    except ValueError:
        gamma = math.nan
    if not 0 <= gamma <= 1:
        raise ValueError(f"tcd.gamma in the metadata must be from 0 to 1, got {text!r:.100}")
    return gamma


def lora_file(given: str) -> LoraFile:
    """The file of `name=path`, or of a path, whose name is then the file's. Raises ValueError for one that is none."""
    name, _, path = given.partition("=") if not is_file(given) else (Path(given).stem, "", given)
    found = Path(path or given)
    try:
        check_name("its name", name)
        tensors, metadata = lora.read(found)
        heard = embed.from_tensors(tensors) is not None
        tcf = "s+" if heard else metadata.get("tcd.tcf", "1")
        tcd.choose(tcd.TCF, "tcd.tcf", tcf)
        if tcf == "s+" and not heard:
            raise ValueError(f"it is of order s+, but has no {embed.PREFIX} tensors, which tell the target time")
        gamma = gamma_of(metadata)
    except (OSError, ValueError) as error:
        raise ValueError(f"network_weights {given!r}: {error}") from error
    return LoraFile(name, found, gamma, tcf)


def lora_files(given: Sequence[str]) -> list[LoraFile]:
    """All of `network_weights`. Raises ValueError also for two of the same name."""
    files = [lora_file(one) for one in given]
    names = [file.name for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"network_weights {twice[0]!r} is there twice: give each a name of its own, as name=path")
    return files


class Loaded(Parts):
    """The parts that one network plays with a LoRA that is read, not trained; without one the network is both."""

    def __init__(self, models: Models, opts: Options, adapter: lora.Lora | None, hearing: tcd.TargetTimeNet | None):
        self.opts, self.sched, self.kind = opts, models.sched, models.kind
        self.adapter, self.hearing, self.ema, self.keeps_less = adapter, hearing, None, False
        self.net: Counting = Counting(models, opts.guidance_scale)
        self.student_net = self.net
        self.trained = nn.ModuleDict()

    def precision(self, device: torch.device) -> AbstractContextManager:
        """Nothing is trained: all weights are in the asked for precision already."""
        return nullcontext()

    def teacher(self, conds: Sequence[Cond], uncond: Cond, sizes: Sequence[Size], w: Tensor | float) -> tcd.Predict:
        """As that of training; without guidance in one evaluation."""
        if isinstance(w, Tensor) or w:
            return super().teacher(conds, uncond, sizes, w)

        def alone(x: Tensor, t: Tensor) -> Tensor:
            with self.switched(False):
                return self.net(x, t, conds, sizes)

        return tcd.as_x0(alone, self.sched, self.kind)


class Counting(Network):
    """The network, which counts the samples that it evaluates."""

    evaluated = 0

    def __call__(self, x: Tensor, t: Tensor, conds: Sequence[Cond], sizes: Sequence[Size]) -> Tensor:
        self.evaluated += len(x)
        return super().__call__(x, t, conds, sizes)


@contextmanager
def loaded(models: Models, opts: Options, file: LoraFile | None) -> Iterator[Loaded]:
    """The model with the LoRA on, within the `with`. Raises ValueError for a LoRA that does not fit."""
    if file is None:
        yield Loaded(models, opts, None, None)
        return
    try:
        adapter = lora.load(file.path, models.unet)
    except ValueError as error:
        raise ValueError(f"network_weights {error}") from error
    try:
        embedding = embed.from_tensors(adapter.extra)
        hearing = tcd.TargetTimeNet(models.unet, embedding.to(models.device)) if embedding else None
        yield Loaded(models, opts, adapter, hearing)
    finally:
        adapter.remove()
