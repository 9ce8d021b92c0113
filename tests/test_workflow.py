"""The shipped workflow: in the real front end with its pictures, and its API twin on the real server.

UPDATE_API=1 rewrites workflows/api/tiny_tcd.json from workflows/tiny_tcd.json instead of comparing the two;
SCREENSHOTS=folder keeps a picture of the front end.
"""

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest
from PIL import Image

from demo import client

pytestmark = pytest.mark.host

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
NAME = "tiny_tcd"
TWIN = WORKFLOWS / "api" / f"{NAME}.json"
GRAPH = json.loads(TWIN.read_text(encoding="utf-8"))
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": "1.32.9", "Comfy.Release.Status": "skip"}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
SECONDS = 120_000  # as playwright counts: a busy machine may need far more than the usual ten


def node_of(kind: str) -> str:
    """The id of the only node of this class."""
    (found,) = (node_id for node_id, node in GRAPH.items() if node["class_type"] == kind)
    return found


def graph_with(kind: str, **inputs) -> client.Graph:
    """The twin with other inputs of one node."""
    changed = deepcopy(GRAPH)
    changed[node_of(kind)]["inputs"].update(inputs)
    return changed


def post(url: str, value: object) -> None:
    header = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(value).encode(), header)).close()


@contextmanager
def front_end(base_url: str, chromium: str) -> Iterator:
    """A page with the front end, ready, and with nothing on it but the graph."""
    from playwright.sync_api import sync_playwright

    post(f"{base_url}/settings", SETTINGS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.set_default_timeout(SECONDS)
        page.goto(base_url)
        page.wait_for_function("window.app?.graph && window.app.extensionManager && document.querySelector('canvas')")
        page.wait_for_function("'TCD_ViewTrajectory' in LiteGraph.registered_node_types")
        yield page
        browser.close()


def said(page) -> list[str]:
    """The words of every toast and dialog."""
    return page.locator(".p-toast-message, .p-dialog, .comfy-missing-nodes").all_inner_texts()


@pytest.mark.browser
@pytest.mark.slow
def test_the_front_end_opens_and_runs_the_workflow(server, chromium):
    with front_end(server, chromium) as page:
        page.evaluate("graph => app.loadGraphData(graph)", json.loads((WORKFLOWS / f"{NAME}.json").read_text("utf-8")))
        missing = "app.graph.nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))"
        assert page.evaluate(f"{missing}.map(node => node.type)") == []
        assert said(page) == []

        twin = page.evaluate("async () => (await app.graphToPrompt()).output")
        if os.environ.get("UPDATE_API"):
            TWIN.write_text(json.dumps(twin, indent=1) + "\n", encoding="utf-8")
        else:
            assert twin == GRAPH, "the front end makes another API twin: run this test with UPDATE_API=1"

        page.evaluate(
            """() => { for (const kind of ['execution_success', 'execution_error'])
                app.api.addEventListener(kind, event => { window.ended = [kind, event.detail] }) }"""
        )
        page.get_by_test_id("queue-button").get_by_role("button").first.click()
        page.wait_for_function("window.ended")
        kind, detail = page.evaluate("window.ended")
        assert kind == "execution_success", detail
        for shown in ("SaveImage", "TCD_ViewTrajectory"):
            images = f"app.graph.getNodeById({node_of(shown)}).imgs"
            page.wait_for_function(f"{images}?.length && {images}.every(image => image.naturalWidth > 0)")
            assert page.evaluate(f"{images}.length") == {"SaveImage": 4, "TCD_ViewTrajectory": 1}[shown]
        (report,) = page.locator(".tcd-report").all_text_contents()
        assert "132 of 132 modules matched" in report
        assert said(page) == []
        if folder := os.environ.get("SCREENSHOTS"):
            page.evaluate(
                "app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [80, 120]; app.canvas.setDirty(true, true)"
            )
            page.wait_for_timeout(500)
            page.screenshot(path=str(Path(folder) / f"{NAME}.png"))


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


def test_the_twin_makes_its_pictures(server, tmp_path):
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
