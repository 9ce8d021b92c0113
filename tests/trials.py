"""A small network of a family with a LoRA on it, and the gradients that a training step comes to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host_process
import torch
from lora_nets import plain
from torch import Tensor, nn

from tcd import lora
from training import host


@dataclass(frozen=True)
class Trial:
    """A small network with a LoRA on it that does something, and inputs for it."""

    name: str
    models: host.Models
    adapter: lora.Lora

    @property
    def net(self) -> nn.Module:
        return self.models.unet

    def evaluate(self) -> Tensor:
        """Its output for two samples, in its own precision."""
        dtype = next(self.net.parameters()).dtype
        channels = self.models.model.model.latent_format.latent_channels
        x = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(3)).to(dtype)
        t = torch.tensor([0.9, 0.02]) * (1 if self.models.kind == "flow" else 1000)
        conds = [host.encode_text(self.models, text) for text in ("a b", "c d")]
        return host.Network(self.models)(x, t, conds, [host.Size(64, 64, 0, 0, 64, 64)] * 2)


def trial_of(name: str, **dropout: Any) -> Trial:
    host_process.pack()
    models = host.load(Path("none"), f"small_models:{name}")
    torch.manual_seed(1)
    adapter = lora.inject(models.unet, 4, **dropout)
    for path in plain(adapter):
        nn.init.normal_(path.up, std=0.1)
    return Trial(name, models, adapter)


def gradients(trial: Trial) -> list[Tensor]:
    """Of the LoRA, as a training step comes to them: the teacher first, then the target, then the student."""
    with torch.no_grad():
        with lora.toggle(trial.adapter, False):
            teacher = trial.evaluate()
        target = trial.evaluate()
    loss = (trial.evaluate() - teacher - 0.5 * target).square().mean()
    return list(torch.autograd.grad(loss, list(trial.adapter.parameters()), materialize_grads=True))


def close(found: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-6) -> None:
    for slope, goal in zip(found, wanted, strict=True):
        torch.testing.assert_close(slope, goal, rtol=tolerance, atol=tolerance * float(goal.abs().max()))
