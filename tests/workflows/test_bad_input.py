"""What the server says of bad values in the tiny workflow, as it is shipped in API format; and that it goes on."""

import json
from copy import deepcopy

import pytest
from PIL import Image

from demo import client
from demo.workflows import API, FOLDER

pytestmark = pytest.mark.host

GRAPH = json.loads((FOLDER / "api" / f"{API}.json").read_text(encoding="utf-8"))


def node_of(kind: str) -> str:
    """The id of the only node of this class."""
    (found,) = (node_id for node_id, node in GRAPH.items() if node["class_type"] == kind)
    return found


def graph_with(kind: str, **inputs) -> client.Graph:
    """The workflow with other inputs of one node."""
    changed = deepcopy(GRAPH)
    changed[node_of(kind)]["inputs"].update(inputs)
    return changed


def size_of(path) -> tuple[int, int]:
    """Size of a picture that holds more than one colour."""
    with Image.open(path) as image:
        assert image.getcolors(1) is None
        return image.size


def check_pictures(server, folder, graph) -> None:
    outputs = client.run_workflow(server, graph)
    paths = client.fetch(server, graph, outputs, folder)
    saved = [path for path in paths if "save_image" in path.name]
    (plot,) = set(paths) - set(saved)
    assert [size_of(path) for path in saved] == [(128, 128)] * 4
    assert min(size_of(plot)) > 300


def test_the_workflow_makes_its_pictures(server, tmp_path):
    check_pictures(server, tmp_path, GRAPH)


@pytest.mark.parametrize(
    ("kind", "inputs", "reason"),
    [
        ("TCD_Sampler", {"gamma": 1.7}, r"TCD Sampler\): Value 1\.7 bigger than max of 1\.0: gamma"),
        ("TCD_Sampler", {"gamma": -0.1}, r"TCD Sampler\): Value -0\.1 smaller than min of 0\.0: gamma"),
        ("TCD_Scheduler", {"steps": 0}, r"TCD Scheduler\): Value 0 smaller than min of 1: steps"),
        ("TCD_ViewTrajectory", {"item": -1}, r"TCD View Trajectory\): Value -1 smaller than min of 0: item"),
        # ComfyUI 0.3.75 does not look at the choice in a list, later ones do: either way the value is named.
        ("TCD_Sampler", {"order": "3"}, r"TCD.Sampler\).*order.*'3'"),
        ("TCD_Sampler", {"last_step": "end"}, r"TCD.Sampler\).*last_step.*'end'"),
        ("TCD_Scheduler", {"grid": "fine"}, r"TCD.Scheduler\).*grid.*'fine'"),
        ("TCD_LoraLoader", {"lora": "gone.safetensors"}, r"'gone\.safetensors'"),
        ("TCD_Scheduler", {"steps": 51}, r"TCD_Scheduler\).*\[1, 50\].*got 51"),
        ("TCD_ViewTrajectory", {"item": 4}, r"TCD_ViewTrajectory\): item must be below the batch size 4, got 4"),
    ],
)
def test_bad_input_is_named_and_the_server_goes_on(server, tmp_path, kind, inputs, reason):
    with pytest.raises(client.WorkflowError, match=reason):
        client.run_workflow(server, graph_with(kind, **inputs))
    check_pictures(server, tmp_path, GRAPH)
