"""From what a network gives (noise, velocity, clean data, flow) to the one currency: the clean prediction x0."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .schedule import Level, Schedule, Time

Predict = Callable[..., Tensor]  # predict(x [B, C, ...], t, s) -> x0 [B, C, ...]


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """A coefficient, 0-dim or [B], shaped and placed to multiply x [B, C, ...]."""
    coefficient = coefficient.to(x.device)
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)) if coefficient.ndim else coefficient


# kind -> (a, b, c) of alpha and sigma, such that a x + b output = c x0
TO_X0: dict[str, Callable[[Level, Level], tuple[Level, Level, Level]]] = {
    "eps": lambda alpha, sigma: (1.0, -sigma, alpha),
    "v": lambda alpha, sigma: (alpha, -sigma * (alpha**2 + sigma**2) ** 0.5, alpha**2 + sigma**2),
    "x0": lambda alpha, sigma: (0.0, 1.0, 1.0),
    "flow": lambda alpha, sigma: (1.0, -sigma, alpha + sigma),
}


def in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in that dtype; asked for before it is converted, for `Tensor.to` costs as much as a small state's sum."""
    return x if x.dtype is dtype else x.to(dtype)


def scaled(a: Level, x: Tensor, dtype: torch.dtype) -> Tensor:
    """a x in that dtype; x itself, not a copy, where that is what it is."""
    if isinstance(a, Tensor):
        return in_dtype(x, dtype) * expand(a, x).to(dtype)
    return in_dtype(x, dtype) if a == 1 else in_dtype(x, dtype) * a


def combine(*terms: tuple[Level, Tensor]) -> Tensor:
    """a x + b y + ... of terms (coefficient: float, [] or [B]; state [B, C, ...]), in the dtype of the first state.

    Computed in float32 at least; the caller's states are never written to.
    """
    (a, x), *rest = terms
    dtype = torch.promote_types(x.dtype, torch.float32)
    if isinstance(a, Tensor):
        dtype = torch.promote_types(dtype, a.dtype)
    total = scaled(a, x, dtype)
    for b, y in rest:
        add, addcmul = (torch.add, torch.addcmul) if total is x else (Tensor.add_, Tensor.addcmul_)
        y = in_dtype(y, dtype)
        total = addcmul(total, expand(b, y).to(dtype), y) if isinstance(b, Tensor) else add(total, y, alpha=b)
    return in_dtype(total, x.dtype)


def vanishes(level: Level) -> bool:
    """Whether it is 0, or 0 anywhere."""
    return bool((level == 0).any()) if isinstance(level, Tensor) else level == 0


def choose(table: dict[str, Any], what: str, name: str) -> Any:
    """The entry of that name; ValueError with the known names where there is none."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{what} must be one of {', '.join(table)}; got {name!r}")
    return table[name]


def x0_from(output: Tensor, kind: str, sched: Schedule, x: Tensor, t: Time) -> Tensor:
    """The clean prediction from a network's output of the given kind at (x, t); shape and dtype of x.

    eps: x0 = (x - sigma eps) / alpha. v = alpha eps - sigma x0: x0 = alpha x - sigma v. flow v = eps - x0:
    x0 = x - sigma v. Where alpha is 0, eps says nothing about x0: ValueError.
    """
    a, b, c = choose(TO_X0, "kind", kind)(*sched.levels(t))
    if kind == "eps" and vanishes(c):
        raise ValueError("an eps-prediction says nothing about x0 where alpha is 0 (zero terminal SNR): use kind='v'")
    return combine((a / c, x), (b / c, output))


def output_from(x0: Tensor, kind: str, sched: Schedule, x: Tensor, t: Time) -> Tensor:
    """The inverse of `x0_from`: what a network of the given kind would have said at (x, t) to predict x0.

    Raises ValueError where nothing follows: for eps, v and flow where sigma is 0.
    """
    a, b, c = choose(TO_X0, "kind", kind)(*sched.levels(t))
    if vanishes(b):
        raise ValueError(f"clean data does not tell the {kind} of its noise: sigma is 0 at t = {t}")
    return combine((-a / b, x), (c / b, x0))


def takes_target_time(net: Callable, named: Collection[str] = ()) -> bool:
    """Whether net(x, t, s) asks for the target time as a third required positional argument (TCF(S+)).

    A module is asked by its `forward`: its `__call__` takes anything. What is passed by name, `named`, does not count.
    """
    try:
        parameters = inspect.signature(net.forward if isinstance(net, nn.Module) else net).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty and p.name not in named for p in parameters) >= 3


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


def extrapolate(cond: Tensor, uncond: Tensor, w: float | Tensor) -> Tensor:
    """Classifier-free guidance: (1 + w) cond - w uncond, in the dtype of cond; w is a number or [B]."""
    w = torch.as_tensor(w)
    return combine((1 + w, cond), (-w, uncond))


def guided(cond: Predict, uncond: Predict, w: float | Tensor) -> Predict:
    """The guided prediction (1 + w) cond - w uncond (Algorithm 2); w is a number or [B]. ComfyUI's cfg is 1 + w.

    Two calls, of any two predictions. Where one network takes both conditions, `guided_net` needs one.
    """

    def predict(x: Tensor, t: Time, s: Time | None = None) -> Tensor:
        return extrapolate(cond(x, t, s), uncond(x, t, s), w)

    return predict


def joined(cond: Tensor | list, uncond: Tensor | list, count: int) -> Tensor | list:
    """Both conditions of `count` samples after one another: tensors [count or 1, ...], or lists of `count`."""
    if isinstance(cond, list) or isinstance(uncond, list):
        return [*cond, *uncond]
    return torch.cat([part.expand(count, *part.shape[1:]) for part in (cond, uncond)])


def guided_net(net: Callable, cond: Mapping[str, Any], uncond: Mapping[str, Any], w: float | Tensor) -> Callable:
    """A network with guidance inside, evaluated once on a batch of 2 B: to be wrapped by `as_x0`, whatever its kind.

    `cond` and `uncond` hold what the network takes besides x and its times: tensors [B, ...], or [1, ...] for all; or
    lists, of anything for each of the B samples.
    x0 is linear in the output of every kind, so guiding the output guides x0. Raises ValueError unless both hold the
    same names.

    >>> net = guided_net(lambda x, t, c: x * c, {"c": torch.tensor([[3.0]])}, {"c": torch.tensor([[1.0]])}, w=2.0)
    >>> net(torch.ones(1, 1), torch.tensor([5.0]))
    tensor([[7.]])
    """
    if cond.keys() != uncond.keys():
        raise ValueError(f"cond and uncond must hold the same names, got {sorted(cond)} and {sorted(uncond)}")

    def both(x: Tensor, *times: Tensor) -> Tensor:
        pair = {name: joined(cond[name], uncond[name], len(x)) for name in cond}
        twice = (torch.cat([part, part]) for part in (x, *times))
        positive, negative = net(*twice, **pair).chunk(2)
        return extrapolate(positive, negative, w)

    if takes_target_time(net, cond):
        return lambda x, t, s: both(x, t, s)
    return lambda x, t: both(x, t)
