"""ComfyUI in this process, with the pack loaded as ComfyUI loads it, so that single nodes can be run and looked into.

Nothing of the host is imported before `pack` is called: a machine without one still collects every test.
"""

import asyncio
import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from training import host

ROOT = Path(__file__).resolve().parent.parent


@cache
def pack() -> dict[str, Any]:
    """Our node classes by node id, from the root `__init__.py` under the odd name that ComfyUI gives to it."""
    host.start()
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
    return {node.define_schema().node_id: node for node in found}


def module(name: str) -> ModuleType:
    """A file of nodes/, of the loaded pack."""
    package = pack()["TCD_Sampler"].__module__.rsplit(".", 1)[0]
    return sys.modules[f"{package}.{name}"]


def adapt() -> ModuleType:
    return module("adapt")


EXTRAS = ("custom_sampler", "hooks", "perpneg", "differential_diffusion")  # of ComfyUI's files of nodes, those in use


@cache
def stock(name: str) -> Any:
    """A node class that comes with ComfyUI."""
    pack()
    theirs = importlib.import_module("nodes")  # this folder's name too: a type checker would take ours
    files = [theirs, *(importlib.import_module(f"comfy_extras.nodes_{extra}") for extra in EXTRAS)]
    older = {key: node for file in files for key, node in getattr(file, "NODE_CLASS_MAPPINGS", {}).items()}
    return older.get(name) or next(getattr(file, name) for file in files[1:] if hasattr(file, name))


def run(node: str, **inputs: Any) -> tuple:
    """What a node gives, ours or a stock one, run as the server runs it."""
    found = pack().get(node) or stock(node)
    with torch.inference_mode():
        if hasattr(found, "PREPARE_CLASS_CLONE"):
            return found.PREPARE_CLASS_CLONE({}).execute(**inputs).result
        return getattr(found(), found.FUNCTION)(**inputs)


def empty(batch: int = 1) -> dict[str, Tensor]:
    """The tiny model's empty latent."""
    return run("EmptyLatentImage", width=128, height=128, batch_size=batch)[0]


def sigmas(model: Any, steps: int = 4, denoise: float = 1.0, grid: str = "distillation", **more: Any) -> Tensor:
    return run("TCD_Scheduler", model=model, steps=steps, denoise=denoise, grid=grid, times="", **more)[0]


def tcd_sampler(gamma: float = 0.3, order: str = "1", last_step: str = "x0", noise_offset: int = 0, **more: Any) -> Any:
    inputs = {"gamma": gamma, "order": order, "last_step": last_step, "noise_offset": noise_offset}
    return run("TCD_Sampler", **inputs, **more)[0]


def stock_sampler(name: str) -> Any:
    return run("KSamplerSelect", sampler_name=name)[0]


def sample(model: Any, cond: Any, sampler: Any, levels: Tensor, latent: Any = None, seed: int | None = 0) -> Tensor:
    """The latent that SamplerCustomAdvanced gives; seed None goes on from a latent without new noise."""
    (noise,) = run("DisableNoise") if seed is None else run("RandomNoise", noise_seed=seed)
    (guider,) = run("BasicGuider", model=model, conditioning=cond)
    latent = empty() if latent is None else latent
    return run(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=levels, latent_image=latent
    )[0]["samples"]


def far(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a part of the largest wanted value: a network's outputs may have any scale."""
    assert got.shape == wanted.shape
    return ((got - wanted).abs().max() / wanted.abs().max()).item()
