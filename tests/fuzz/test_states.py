"""Training states and checkpoints: damaged, of other content, with weights that are missing or not finite."""

import pickle
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
import small_models
import torch
from fuzz.mutations import damaged, seeds
from fuzz.rule import refused_or_right
from host_process import pack
from safetensors.torch import save_file
from short_runs import options_of, pictures

from training import host
from training.run import Run, prepare

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run that could begin."""
    pack()
    data = pictures(tmp_path_factory.mktemp("data"))
    return prepare(options_of(data, tmp_path_factory.mktemp("output"), ema_decay=0.9, network_args=("include=middle",)))


class Harmful:
    """What a pickle may do when it is opened."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harmed"),))


NAN = float("nan")
ODD = (
    None,
    0,
    -1,
    1.5,
    "x",
    [],
    {},
    {"a": 1},
    [1],
    {"state": {}},
    {"state": {0: {}}, "param_groups": []},
    {"trained": 1},
)


def odd(saved: dict[str, Any], chance: Random) -> Any:
    """The same with something odd about it."""
    saved = {name: dict(value) if isinstance(value, dict) else value for name, value in saved.items()}
    what, name = chance.choice(("gone", "value", "nan", "shape", "inner", "all")), chance.choice(sorted(saved))
    if what == "gone":
        del saved[name]
    elif what == "value":
        saved[name] = chance.choice(ODD)
    elif what == "inner" and isinstance(saved[name], dict) and saved[name]:
        saved[name][chance.choice(sorted(saved[name], key=str))] = chance.choice(ODD)
    elif what in ("nan", "shape"):
        key = chance.choice(sorted(saved["trained"]))
        tensor = saved["trained"][key]
        saved["trained"][key] = torch.full_like(tensor, NAN) if what == "nan" else tensor[..., None]
    elif what == "all":
        return chance.choice(ODD)
    return saved


def packed(content: Any) -> bytes:
    made = BytesIO()
    torch.save(content, made)
    return made.getvalue()


def test_a_state_is_resumed_or_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    state, sound = run.state, run.state.collect(2)
    monkeypatch.setattr(state, "opts", replace(run.opts, resume=str(path)))
    whole = packed(sound)

    def check(step: int) -> None:
        assert step >= 0
        assert all(bool(weight.isfinite().all()) for weight in run.parts.weights)

    for chance in seeds("state", 400):
        path.write_bytes(damaged(whole, chance) if chance.random() < 0.5 else packed(odd(sound, chance)))
        refused_or_right("state", state.resume, check, [str(path)])
        state.load(sound)
    path.write_bytes(pickle.dumps(Harmful()))
    assert not refused_or_right("state", state.resume, check, [str(path)])
    assert not (tmp_path / "harmed").exists()


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    """Tensors of a small SD3, a small VAE, and of a text encoder what tells which it is."""
    pack()
    from comfy.taesd.taesd import TAESD

    net, vae = small_models.load("sd3")[0].model.diffusion_model, TAESD(latent_channels=16)
    small_models.randomize(vae)
    state = {NET + name: value.contiguous() for name, value in net.state_dict().items()}
    state |= {f"first_stage_model.{name}": value.contiguous() for name, value in vae.state_dict().items()}
    return state | {"text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": torch.ones(768)}


NET = "model.diffusion_model."
CHECKPOINTS = ("whole", "nan", "inf", "gone", "shape", "empty", "renamed", "truncated", "damaged", "pickle")


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_checkpoint_is_whole_or_refused(checkpoint, tmp_path, what):
    path = tmp_path / "model.safetensors"
    for chance in seeds(f"checkpoint {what}", 2):
        state = dict(checkpoint)
        key = chance.choice([key for key in sorted(state) if key.startswith(NET + "joint_blocks")])
        if what in ("nan", "inf"):
            state[key] = torch.full_like(state[key], float(what))
        elif what == "gone":
            del state[key]
        elif what == "shape":
            state[key] = torch.cat([state[key], state[key]]).contiguous()
        elif what == "empty":
            state = {"a": torch.ones(1)}
        elif what == "renamed":
            state[key + "x"] = state.pop(key)
        save_file(state, path)
        content = path.read_bytes()
        if what == "truncated":
            path.write_bytes(content[: chance.randrange(len(content))])
        elif what == "damaged":
            path.write_bytes(damaged(content[:100_000], chance) + content[100_000:])
        elif what == "pickle":
            path.write_bytes(packed({"a": torch.ones(1)}))
        taken = refused_or_right("checkpoint", lambda: host.load(path), check_whole, [str(path)])
        assert taken == (what == "whole")


def check_whole(models: host.Models) -> None:
    assert all(bool(weight.isfinite().all()) for weight in models.unet.parameters())
