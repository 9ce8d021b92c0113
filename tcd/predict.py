"""From what a network gives (noise, velocity, clean data, flow) to the one currency: the clean prediction x0."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .schedule import Schedule, Time

Predict = Callable[..., Tensor]  # predict(x [B, C, ...], t, s) -> x0 [B, C, ...]


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """A 0-dim or [B] coefficient, shaped and placed to multiply x [B, C, ...] in float32 at least."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, torch.float32), coefficient.dtype)
    return coefficient.to(x.device, dtype).reshape(-1, *[1] * (x.ndim - 1))


# kind -> (factor of x, factor of the network's output) that give x0, from alpha and sigma of the schedule
TO_X0: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": lambda alpha, sigma: (1 / alpha, -sigma / alpha),
    "v": lambda alpha, sigma: (alpha / (alpha**2 + sigma**2), -sigma / (alpha**2 + sigma**2).sqrt()),
    "x0": lambda alpha, sigma: (torch.zeros_like(alpha), torch.ones_like(alpha)),
    "flow": lambda alpha, sigma: (1 / (alpha + sigma), -sigma / (alpha + sigma)),
}


def choose(table: dict[str, Any], what: str, name: str) -> Any:
    """The entry of that name; ValueError with the known names where there is none."""
    if name not in table:
        raise ValueError(f"{what} must be one of {', '.join(table)}; got {name!r}")
    return table[name]


def x0_from(output: Tensor, kind: str, sched: Schedule, x: Tensor, t: Time) -> Tensor:
    """The clean prediction from a network's output of the given kind at (x, t); shape and dtype of x.

    eps: x0 = (x - sigma eps) / alpha. v = alpha eps - sigma x0: x0 = alpha x - sigma v. flow v = eps - x0:
    x0 = x - sigma v. Where alpha is 0, eps says nothing about x0: ValueError.
    """
    factors = choose(TO_X0, "kind", kind)
    alpha, sigma = sched.alpha(t), sched.sigma(t)
    if kind == "eps" and bool((alpha == 0).any()):
        raise ValueError("an eps-prediction says nothing about x0 where alpha is 0 (zero terminal SNR): use kind='v'")
    of_x, of_output = factors(alpha, sigma)
    return (expand(of_x, x) * x + expand(of_output, x) * output).to(x.dtype)


def takes_target_time(net: Callable) -> bool:
    """Whether net(x, t, s) asks for the target time as a third required positional argument (TCF(S+)).

    A module is asked by its `forward`: its `__call__` takes anything.
    """
    try:
        parameters = inspect.signature(net.forward if isinstance(net, nn.Module) else net).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) >= 3


def as_x0(net: Callable, sched: Schedule, kind: str = "eps") -> Predict:
    """Wrap net(x, t) or net(x, t, s) into predict(x, t, s) -> x0.

    The network is called with times of shape [B], in float32 at least. `kind` is "eps", "v", "x0" or "flow".
    """
    choose(TO_X0, "kind", kind)
    wants_s = takes_target_time(net)

    def per_sample(t: Time, x: Tensor) -> Tensor:
        t = torch.as_tensor(t, device=x.device)
        return t.to(torch.promote_types(t.dtype, torch.float32)).expand(x.shape[0])

    def predict(x: Tensor, t: Time, s: Time | None = None) -> Tensor:
        times = (t,) if not wants_s else (t, t if s is None else s)
        return x0_from(net(x, *(per_sample(time, x) for time in times)), kind, sched, x, t)

    return predict


def guided(cond: Predict, uncond: Predict, w: float | Tensor) -> Predict:
    """Classifier-free guidance (1 + w) cond - w uncond (Algorithm 2); w is a number or [B]. ComfyUI's cfg is 1 + w."""

    def predict(x: Tensor, t: Time, s: Time | None = None) -> Tensor:
        scale = expand(torch.as_tensor(w), x)
        positive = cond(x, t, s)
        return (positive + scale * (positive - uncond(x, t, s))).to(x.dtype)

    return predict
