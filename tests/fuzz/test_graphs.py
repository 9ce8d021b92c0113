"""Graphs as they come to the server, with any value in any input: ComfyUI's own check, then the node's."""

import asyncio
import importlib
import json
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fuzz.mutations import seeds
from fuzz.rule import refused_or_right
from host_process import empty, module, pack, run

pytestmark = pytest.mark.host

CASES = 200  # for each node; fewer of those that read or write whole files
FEWER = {"TCD_LoraLoader": 50, "TCD_ViewTrajectory": 20}

# Values of any type that JSON and Python's dialect of it have.
ANY = (
    *(None, True, False, 0, 1, -1, 4, 51, 1001, 2**31, 2**64, -(2**64), 10**400, 0.0, 0.3, 1.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", "4", "0.3", "nan", "x", "\0", "../x", "a" * 5000, "[1]"),
    *([], [1], ["1", 0], ["9", 0], ["1", 9], [1, 2, 3], {}, {"a": 1}, {"__value__": [1]}, {"__value__": None}),
)
TEXTS = {
    "values": ("", "0.5, 0.3, 0.2", "nan", "0.5,"),
    "times": ("", "999, 759, 499, 259", "0", "1000", "5, 5"),
    "methods": ("tcd", "tcd, lcm, euler", "magic", ""),
    "steps": ("2, 4", "0", "1e3"),
    "gammas": ("0, 0.3", "2", ""),
}


def value_of(name: str, kind: Any, told: dict[str, Any], chance: Random) -> Any:
    """For a widget: the default mostly, its limits and beyond, or anything."""
    choice = chance.random()
    if choice < 0.75 and "default" in told:
        return told["default"]
    if choice < 0.9:
        limits = [told[end] + more for end in ("min", "max") if end in told for more in (-1, 0, 1)]
        likely = [
            *limits,
            *TEXTS.get(name, ()),
            *(told.get("options") or ()),
            *(kind if isinstance(kind, list) else ()),
        ]
        if likely:
            return chance.choice(likely)
    return chance.choice(ANY)


def prompt_of(name: str, chance: Random) -> dict[str, Any]:
    """A graph of one of our nodes, with the tiny model where it wants one."""
    inputs: dict[str, Any] = {}
    for category in ("required", "optional"):
        for key, (kind, told) in pack()[name].INPUT_TYPES().get(category, {}).items():
            if kind in LINKS:
                if category == "required" or chance.random() < 0.3:
                    inputs[key] = list(LINKS[kind])
            elif kind in WIDGETS or isinstance(kind, list):
                inputs[key] = value_of(key, kind, told, chance)
    if chance.random() < 0.05:
        inputs.pop(chance.choice(sorted(inputs)), None)
    return {
        "0": {"class_type": name, "inputs": inputs},
        "end": {"class_type": "End", "inputs": {"x": ["0", 0]}},
        **SOURCES,
    }


class End:
    """A node that makes ComfyUI run the one before it."""

    kind = ""
    RETURN_TYPES, OUTPUT_NODE, FUNCTION = (), True, "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"x": (cls.kind,)}}


WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
LINKS = {
    "MODEL": ("1", 0),
    "CLIP": ("1", 1),
    "VAE": ("1", 2),
    "CONDITIONING": ("2", 0),
    "LATENT": ("3", 0),
    "TCD_GAMMAS": ("4", 0),
    "TCD_TRAJECTORY": ("5", 2),
}
SAMPLED = {"seed": 0, "steps": 1, "cfg": 1.0, "gamma": 0.3, "order": "1", "denoise": 1.0, "grid": "dense"}
SAMPLED |= {"last_step": "x0"}
SOURCES = {
    "1": {"class_type": "TCD_TinyLoader", "inputs": {}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "red heart"}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    "4": {
        "class_type": "TCD_GammaSchedule",
        "inputs": {"start": 0.5, "end": 0.1, "curve": "linear", "values": ""},
    },
    "5": {
        "class_type": "TCD_KSampler",
        "inputs": {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent": ["3", 0], **SAMPLED},
    },
}


@pytest.fixture(scope="module")
def made() -> dict[tuple[str, int], Any]:
    """What the sources give: (id of the node, number of the output) -> object."""
    tiny = run("TCD_TinyLoader")
    cond = run("CLIPTextEncode", clip=tiny[1], text="red heart")
    gammas = run("TCD_GammaSchedule", start=0.5, end=0.1, curve="linear", values="")
    sampled = run("TCD_KSampler", model=tiny[0], positive=cond[0], negative=cond[0], latent=empty(), **SAMPLED)
    sources = {"1": tiny, "2": cond, "3": (empty(),), "4": gammas, "5": sampled}
    return {(node, i): output for node, outputs in sources.items() for i, output in enumerate(outputs)}


@pytest.fixture
def validate(monkeypatch) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """ComfyUI's own check of a graph, which also converts its values. Raises ValueError with what it says."""
    pack()
    import execution

    theirs: Any = importlib.import_module("nodes")  # this folder's name too: a type checker would take ours

    for name, node in pack().items():
        monkeypatch.setitem(theirs.NODE_CLASS_MAPPINGS, name, node)
    monkeypatch.setitem(theirs.NODE_CLASS_MAPPINGS, "End", End)

    def checked(prompt: dict[str, Any]) -> dict[str, Any]:
        sent = json.loads(json.dumps(prompt))
        End.kind = theirs.NODE_CLASS_MAPPINGS[sent["0"]["class_type"]].RETURN_TYPES[0]
        outcome: Any = asyncio.run(execution.validate_prompt("fuzz", sent, None))
        ok, error, *_ = outcome
        if not ok:
            raise ValueError(error["message"])
        return sent["0"]["inputs"]

    return checked


@pytest.fixture
def light(monkeypatch, tmp_path) -> None:
    """Nothing is sampled, and of pictures no grid is made: the nodes check their inputs before."""

    def sampler_custom(*args: Any) -> Any:
        return SimpleNamespace(result=(empty(), empty()))

    monkeypatch.setattr(module("sampling"), "SamplerCustom", SimpleNamespace(execute=sampler_custom))
    monkeypatch.setattr(module("compare"), "sample_all", lambda cells, latent, seed: cells)
    monkeypatch.setattr(module("compare"), "drawn", lambda *args: (torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8, 3)))
    monkeypatch.setattr(module("compare"), "report", lambda cells: str(cells))
    monkeypatch.setattr(module("compare").ui, "PreviewImage", lambda *args, **named: None)
    monkeypatch.setattr(module("view").Folder, "make", lambda keep: module("view").Folder(tmp_path, "view", "", "temp"))


NODES = [
    *("TCD_Compare", "TCD_GammaSchedule", "TCD_KSampler", "TCD_LoraLoader", "TCD_RecordTrajectory"),
    *("TCD_Sampler", "TCD_Scheduler", "TCD_ViewTrajectory"),
]


def test_every_node_that_takes_anything_is_run():
    assert [name for name in sorted(pack()) if name not in NODES] == ["TCD_TinyLoader"]
    assert pack()["TCD_TinyLoader"].INPUT_TYPES() == {"required": {}}


def check_outputs(outputs: tuple) -> None:
    """Noise levels fall to 0, all finite; nothing is missing."""
    for output in outputs:
        if isinstance(output, torch.Tensor):
            assert bool(output.isfinite().all())
    if len(outputs) == 1 and isinstance(outputs[0], torch.Tensor) and len(outputs[0]):
        assert bool((outputs[0][1:] < outputs[0][:-1]).all())
        assert float(outputs[0][-1]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NODES)
def test_a_graph_is_run_as_it_is_or_refused(name, made, validate, light):
    sent: list[dict[str, Any]] = []
    for chance in seeds(f"graph {name}", FEWER.get(name, CASES)):
        prompt = prompt_of(name, chance)

        if not refused_or_right("graph", lambda prompt=prompt: validate(prompt), lambda inputs: sent.append(inputs)):
            continue
        inputs = {key: made[tuple(value)] if isinstance(value, list) else value for key, value in sent.pop().items()}
        refused_or_right("node", lambda inputs=inputs: run(name, **inputs), check_outputs, values=list(inputs))
