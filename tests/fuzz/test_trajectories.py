"""Trajectory files: damaged, lying, of other types and shapes."""

import json
from random import Random

import pytest
import torch
from fuzz.mutations import damaged, seeds
from fuzz.rule import refused_or_right
from fuzz.safetensors_files import header_of, lying, packed
from torch import Tensor

import tcd
from tcd.trajectory import HEADER, STATES, TIMES

pytestmark = pytest.mark.slow

SOUND = '{"version": 1, "unit": "t"}'
HEADERS = (*(SOUND,) * 6, "{}", "[]", "[" * 100_000, '{"version": 1, "unit": []}', '{"version": "1"}', "")
VALUES = (float("nan"), float("inf"), -1.0, 0.0, 3e38)


def content_of(chance: Random) -> dict[str, Tensor]:
    """A sound trajectory, or one with something odd."""
    n, shape = chance.choice((1, 2, 4)), [chance.choice((1, 2)), 3, 4, 4]
    state = {key: torch.rand(n) for key in TIMES} | {key: torch.randn(n, *shape) for key in STATES}
    if chance.random() < 0.3:
        state["reference"] = torch.randn(n + 1, *shape)
    key = chance.choice(sorted(state))
    odd = chance.choice(("", "", "value", "dtype", "shape", "gone", "more", "empty"))
    if odd == "value":
        state[key].flatten()[0] = chance.choice(VALUES)
    elif odd == "dtype":
        state[key] = state[key].to(chance.choice((torch.bool, torch.int64, torch.float16, torch.float64)))
    elif odd == "shape":
        state[key] = state[key][None]
    elif odd == "gone":
        del state[key]
    elif odd == "more":
        state["more"] = torch.ones(1)
    elif odd == "empty":
        state = {name: tensor[:, :0] if tensor.ndim > 1 else tensor for name, tensor in state.items()}
    return state


def file_of(chance: Random) -> bytes:
    metadata = {HEADER: chance.choice(HEADERS)}
    kind = chance.choice(("odd", "odd", "lying", "damaged"))
    if kind == "lying":
        return lying(content_of(chance), metadata, chance)
    header, data = header_of(content_of(chance), metadata)
    content = packed(json.dumps(header), data)
    return damaged(content, chance) if kind == "damaged" else content


def check_measured(found: tcd.Trajectory) -> None:
    """What it measures has the shapes that it should have."""
    n, batch = found.x_t.shape[:2]
    assert found.drift().shape == (n - 1, batch)
    assert found.detail().shape == (n, batch)
    assert found.plane(batch - 1).path.shape == (n + 1, 2)
    distance = found.distance()
    assert distance is None or distance.shape == (n + 1, batch)


def test_a_trajectory_is_what_the_file_says_or_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    torch.manual_seed(0)
    for chance in seeds("trajectory", 2000):
        path.write_bytes(file_of(chance))
        refused_or_right("trajectory", lambda: tcd.Trajectory.load(path), check_measured, [str(path)])
