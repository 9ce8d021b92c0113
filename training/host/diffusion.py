"""The diffusion model, whatever its inputs: told what ComfyUI's own `extra_conds` make of texts and sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .conditioning import Cond, Size
from .models import Models


class Network:
    """The diffusion model as net(x [B, C, h, w], t [B], conds, sizes) -> output [B, C, h, w], in float32 at least.

    `conds` is a Cond for each sample and `sizes` a Size. Which inputs the network has is up to ComfyUI's `extra_conds`.
    What cannot be computed together, such as captions of different lengths in a transformer, is in several calls.
    """

    def __init__(self, models: Models, guidance: float = 3.5, unet: torch.nn.Module | None = None):
        self.model, self.guidance = models.model.model, guidance
        self.sched, self.kind = models.sched, models.kind
        self.unet = models.unet if unet is None else unet
        self.together = together  # which samples one call computes; a student in parts has to agree on it

    def inputs(self, cond: Cond, size: Size, latent: Tensor) -> dict[str, Any]:
        """ComfyUI's COND objects of one sample by the network's argument."""
        pooled = {} if cond.pooled is None else {"pooled_output": cond.pooled}
        made: dict[str, Any] = self.model.extra_conds(
            device=latent.device,
            noise=latent,
            cross_attn=cond.cross,
            guidance=self.guidance,
            **pooled,
            **cond.extra,
            **size._asdict(),
        )
        return {"context" if name == "c_crossattn" else name: value for name, value in made.items()}

    def all_inputs(self, conds: Sequence[Cond], sizes: Sequence[Size], latent: Tensor) -> list[dict[str, Any]]:
        """The same for each sample; what several share, as the empty prompt, is made once."""
        pairs = [((id(cond), size), cond) for cond, size in zip(conds, sizes, strict=True)]
        made = {key: self.inputs(cond, key[1], latent) for key, cond in dict(pairs).items()}
        return [made[key] for key, _ in pairs]

    def time(self, t: Tensor) -> Tensor:
        """What the network is told for the schedule's time t [B]."""
        return t if self.kind != "flow" else self.model.model_sampling.timestep(self.sched.sigma(t)).float()

    def __call__(self, x: Tensor, t: Tensor, conds: Sequence[Cond], sizes: Sequence[Size]) -> Tensor:
        each = self.all_inputs(conds, sizes, x[:1])
        groups = self.together(each)
        if len(groups) == 1:
            return self.evaluate(x, t, each)
        parts = [self.evaluate(x[rows], t[rows], [each[i] for i in rows]) for rows in groups]
        places = torch.tensor([i for rows in groups for i in rows], device=x.device)
        return torch.cat(parts)[places.argsort()]

    def evaluate(self, x: Tensor, t: Tensor, inputs: list[dict[str, Any]]) -> Tensor:
        """One call of the network, on samples whose inputs go together."""
        dtype = next(self.unet.parameters()).dtype
        joined = {name: first.concat([other[name] for other in inputs[1:]]) for name, first in inputs[0].items()}
        named = {name: moved(value, x.device, dtype) for name, value in joined.items()}
        out = self.unet(x.to(dtype), self.time(t), transformer_options={}, **named)
        return out.to(torch.promote_types(dtype, torch.float32))


def moved(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Tensors, also of a list, on the network's device; all but whole numbers in its format, as ComfyUI has it."""
    if isinstance(value, list):
        return [moved(one, device, dtype) for one in value]
    if not torch.is_tensor(value):
        return value
    return value.to(device, None if value.dtype in (torch.int, torch.long) else dtype)


def together(each: list[dict[str, Any]]) -> list[list[int]]:
    """Indices of the samples that ComfyUI would compute together."""
    groups: list[list[int]] = []
    for i, inputs in enumerate(each):
        for group in groups:
            first = each[group[0]]
            if first.keys() == inputs.keys() and all(first[name].can_concat(inputs[name]) for name in first):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups
