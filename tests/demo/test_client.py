"""demo/client.py: against recorded messages, and against the real server with stock nodes that need no model."""

import asyncio
import json
import subprocess
import sys
from typing import Any, cast

import aiohttp
import pytest

from demo import client

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "My Preview"}},
}


def event(kind, **data):
    return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, json.dumps({"type": kind, "data": data}), None)


def follow(*messages):
    """What client.follow reports for these messages."""

    async def socket():
        for message in messages:
            yield message

    heard = []
    stand_in = cast(Any, socket())
    asyncio.run(client.follow(stand_in, "mine", GRAPH, lambda *report: heard.append(report)))
    return heard


def test_progress_is_of_our_own_prompt_and_ends_with_it():
    running = {"1": {"value": 1, "max": 1, "state": "finished"}, "3": {"value": 1, "max": 4, "state": "running"}}
    end = event("executing", node=None, prompt_id="mine")
    preview = aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, b"picture", None)
    theirs = event("executing", node=None, prompt_id="theirs")
    ours = event("progress_state", nodes=running, prompt_id="mine")
    assert follow(event("status", status={}), preview, theirs, ours, end, ours) == [(1.25, "My Preview")]


def test_a_server_that_goes_away_is_an_error():
    with pytest.raises(client.WorkflowError, match="ComfyUI went away"):
        follow(event("executing", node="1", prompt_id="mine"))


def test_pictures_are_named_by_run_and_never_overwritten(tmp_path):
    assert client.next_run(tmp_path) == "demo_00001"
    (tmp_path / "demo_00001_2_preview.png").touch()
    assert client.next_run(tmp_path) == "demo_00002"


@pytest.mark.host
def test_a_workflow_runs_and_its_pictures_arrive(server, tmp_path):
    heard = []
    outputs = client.run_workflow(server, GRAPH, lambda *report: heard.append(report))
    assert heard[-1][0] == len(GRAPH)
    paths = client.fetch(server, GRAPH, outputs, tmp_path)
    names = ["1_saveimage", "2_saveimage", "3_my_preview", "4_my_preview"]
    assert [path.name for path in paths] == [f"demo_00001_{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


@pytest.mark.host
@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"class_type": "EmptyImage", "inputs": {**GRAPH["1"]["inputs"], "width": -5}}, "node 1 .*EmptyImage.*-5"),
        ({"class_type": "NoSuchNode", "inputs": {}}, "NoSuchNode"),
        ({"class_type": "ImageFromBatch", "inputs": {"image": ["1", 0]}}, "refused"),
    ],
)
def test_a_refused_workflow_names_node_and_reason(server, node, message):
    with pytest.raises(client.WorkflowError, match=message):
        client.run_workflow(server, {**GRAPH, "1": node})


@pytest.mark.host
def test_a_failing_node_is_named_and_the_server_goes_on(server):
    broken = {
        "1": {
            "class_type": "RegexReplace",
            "inputs": {"string": "a", "regex_pattern": "(", "replace": "", "count": 0},
        },
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(client.WorkflowError, match=r"node 1 \(RegexReplace\): .*unterminated"):
        client.run_workflow(server, broken)
    assert client.run_workflow(server, GRAPH)


@pytest.mark.host
def test_the_command_draws_a_bar_and_prints_where_the_pictures_are(server, tmp_path):
    command = [sys.executable, "-m", "demo.client", server, str(tmp_path)]
    done = subprocess.run(command, input=json.dumps(GRAPH), capture_output=True, text=True)
    assert done.returncode == 0
    assert "100%" in done.stderr
    assert str(tmp_path / "demo_00001_1_saveimage.png") in done.stdout.splitlines()
