"""Optimizers by name, from PyTorch and from the libraries that kohya's trainers know."""

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..options import Options


def optimizers_of(module: ModuleType) -> list[str]:
    """Names of the optimizers in a module."""
    classes = [(name, found) for name, found in vars(module).items() if isinstance(found, type)]
    return [name for name, found in classes if issubclass(found, Optimizer) and found is not Optimizer]


UNFIT = ("LBFGS", "SparseAdam")  # for a loss that can be asked again, and for sparse gradients

# Module -> its optimizers that go by their bare names. The module's first part is also the library's name for pip.
LIBRARIES = {
    "torch.optim": [name for name in optimizers_of(torch.optim) if name not in UNFIT],
    "bitsandbytes.optim": (
        *("Adam8bit", "PagedAdam", "PagedAdam8bit", "PagedAdam32bit", "SGD8bit", "RMSprop8bit", "Adagrad8bit"),
        *("AdamW8bit", "PagedAdamW", "PagedAdamW8bit", "PagedAdamW32bit", "AdEMAMix8bit", "PagedAdEMAMix8bit"),
        *("Lion8bit", "PagedLion", "PagedLion8bit", "PagedLion32bit", "LAMB8bit", "LARS8bit"),
    ),
    "prodigyopt": ("Prodigy",),
    "lion_pytorch": ("Lion",),
    "dadaptation": ("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD"),
}
NESTEROV = {"SGDNesterov": "torch.optim.SGD", "SGDNesterov8bit": "bitsandbytes.optim.SGD8bit"}  # kohya's names
NAMES = {name: f"{module}.{name}" for module, names in LIBRARIES.items() for name in names} | NESTEROV
ANY_CASE = {name.lower(): name for name in NAMES}

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # they have one kernel for a whole step ...
FUSED_ON = {"cpu", "cuda"}
UNFUSED = {"fused", "foreach", "differentiable"}  # ... which is used unless one of these is given


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known names that are like this one, in whatever case; nothing where there are none."""
    any_case = {written.lower(): written for written in known}
    near = difflib.get_close_matches(name.lower(), any_case, 3)
    return f"; did you mean {' or '.join(any_case[low] for low in near)}?" if near else ""


def class_of(name: str) -> Callable[..., Optimizer]:
    """The optimizer of that name, in any case, or of package.module.Class. Raises ValueError if there is none."""
    module, _, wanted = NAMES.get(ANY_CASE.get(name.lower(), ""), name).rpartition(".")
    if not module:
        known = f"{', '.join(NAMES)} or package.module.Class"
        raise ValueError(f"optimizer_type must be one of {known}; got {name!r}{nearest(name, NAMES)}")
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(f"optimizer_type {name} needs {package} ({error}): pip install {package}") from None
    known = optimizers_of(library)
    if wanted not in known:
        raise ValueError(f"optimizer_type {name}: {module} has no optimizer {wanted!r}{nearest(wanted, known)}")
    return getattr(library, wanted)


def arguments(found: Callable[..., Optimizer], opts: Options) -> dict[str, Any]:
    """`optimizer_args` as Python values. Raises ValueError that names the bad one and what is allowed."""
    _, *parameters = inspect.signature(found).parameters.values()
    allowed = [p.name for p in parameters if p.name != "lr" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = dict[str, Any]()
    for item in opts.optimizer_args:
        name, equals, text = (part.strip() for part in item.partition("="))
        if name == "lr":
            raise ValueError(f"optimizer_args must not set lr, use learning_rate; got {item!r}")
        if not equals or not (any_name or name in allowed):
            known = f"name=value with one of {', '.join(allowed)}"
            raise ValueError(f"optimizer_args of {opts.optimizer_type} must be {known}; got {item!r}")
        try:
            given[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            example = "0.01, True, 0.9,0.999 or 'text'"
            raise ValueError(f"optimizer_args {name} must be a Python value such as {example}; got {text!r}") from None
    return given


@contextmanager
def refusals(opts: Options) -> Iterator[None]:
    """Whatever an optimizer itself raises, as a ValueError that says which one, and with which arguments."""
    try:
        yield
    except Exception as error:
        given = " ".join(opts.optimizer_args) or "(none)"
        raise ValueError(f"optimizer_type {opts.optimizer_type} with optimizer_args {given} fails: {error}") from error


def optimizer(parameters: Iterable[Tensor], opts: Options) -> Optimizer:
    """The optimizer of the options, of these weights. Raises ValueError for names and arguments that do not exist."""
    weights, found = list(parameters), class_of(opts.optimizer_type)
    given = arguments(found, opts)
    if ANY_CASE.get(opts.optimizer_type.lower()) in NESTEROV:
        given = {"momentum": 0.9, "nesterov": True} | given
    if found in FUSED and not given.keys() & UNFUSED and {weight.device.type for weight in weights} <= FUSED_ON:
        given["fused"] = True
    with refusals(opts):
        return found(weights, lr=opts.learning_rate, **given)
