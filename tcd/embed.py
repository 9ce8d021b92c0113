"""The target time s as an input of the network, for TCF(S+) (eq. 24; appendix C.2)."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import Linear

PREFIX = "tcd_target_time."  # of the embedding's tensors in a LoRA file


def sinusoids(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of times [B] as in DDPM (Ho et al. 2020), cosines first: [B, width], float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class TargetTime(nn.Module):
    """Embeds s [B] by sinusoids and a small MLP: [B, out], to be added to the network's embedding of t.

    The last layer starts at zero, so that the student starts as its teacher. `scale` brings times to the range 0 ..
    1000 that sinusoids are made for: 1 for discrete times, 1000 for flow.
    """

    def __init__(self, out: int, width: int = 320, scale: float = 1.0):
        super().__init__()
        self.width, self.scale = width, scale
        self.hidden, self.out = Linear(width, out), Linear(out, out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, s: Tensor) -> Tensor:
        embedded = sinusoids(self.scale * s, self.width).to(self.hidden.weight)
        return self.out(nn.functional.silu(self.hidden(embedded)))


def to_tensors(embed: TargetTime, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What a LoRA file of TCF(S+) holds besides its LoRA: the weights of `embed` and its `scale`, 0-dim; on the CPU."""
    state = {**embed.state_dict(), "scale": torch.tensor(float(embed.scale))}
    return {PREFIX + name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}


def check_tensor(name: str, tensor: Tensor | None, shape: tuple[int, ...] | None) -> None:
    """Raises ValueError unless a tensor of this name is there, wanted, of this shape and finite."""
    if tensor is None or shape is None:
        raise ValueError(f"{PREFIX}{name} is {'missing' if tensor is None else 'no tensor of an embedding of s'}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{PREFIX}{name} has shape {tuple(tensor.shape)}, the embedding of s wants {shape}")
    if not bool(tensor.float().isfinite().all()):
        raise ValueError(f"{PREFIX}{name} is not finite")


def from_tensors(tensors: Mapping[str, Tensor]) -> TargetTime | None:
    """The embedding that `to_tensors` wrote, in float32; other keys are not looked at. None where there is none.

    Raises ValueError, with the key, for a tensor that is missing, unknown, of another shape or not finite.
    """
    found = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}
    if not found:
        return None
    hidden = found.get("hidden.weight")
    out, width = hidden.shape if hidden is not None and hidden.ndim == 2 else (1, 1)
    with torch.device("meta"):  # which draws no random numbers
        embed = TargetTime(out, width)
    shapes = {name: tuple(parameter.shape) for name, parameter in embed.named_parameters()} | {"scale": ()}
    for name in [*shapes, *sorted(found.keys() - shapes.keys())]:
        check_tensor(name, found.get(name), shapes.get(name))
    embed.scale = float(found.pop("scale"))
    embed.load_state_dict({name: tensor.float() for name, tensor in found.items()}, assign=True)
    return embed


class TargetTimeNet(nn.Module):
    """Makes net(x, t, ...) a network of TCF(S+), net(x, t, s, ...), without a change to the network itself.

    The embedding of s is added to what the submodule `at` gives, the embedding of t: "time_embed" in Stable
    Diffusion's and ComfyUI's UNets, "time_embedding" in diffusers'. Raises ValueError where there is no such module.
    """

    def __init__(self, net: nn.Module, embed: TargetTime, at: str = "time_embed"):
        super().__init__()
        modules = dict(net.named_modules())
        if at not in modules:
            raise ValueError(f"the network has no module {at!r} whose output embeds t")
        self.net, self.embed = net, embed
        self._s: Tensor | None = None
        modules[at].register_forward_hook(self._add)

    def _add(self, module: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
        return None if self._s is None else out + self.embed(self._s).to(out)

    @contextmanager
    def told(self, s: Tensor) -> Iterator[None]:
        """Within the `with` the network itself, called in any way, knows the target time s [B]."""
        self._s = s
        try:
            yield
        finally:
            self._s = None

    def forward(self, x: Tensor, t: Tensor, s: Tensor, *args, **kwargs) -> Tensor:
        with self.told(s):
            return self.net(x, t, *args, **kwargs)
