"""What only a running ComfyUI shows: Cancel in the middle of a run, and names that a setting puts into its lists."""

import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from demo import client
from demo import server as demo_server
from demo.workflows import browser

pytestmark = pytest.mark.host

TWIN = json.loads((demo_server.ROOT / "workflows" / "api" / "tiny_tcd.json").read_text(encoding="utf-8"))


def node_of(graph, kind):
    """The inputs of the only node of this class."""
    (found,) = (node["inputs"] for node in graph.values() if node["class_type"] == kind)
    return found


def test_cancel_stops_a_run_at_once_and_the_next_one_is_whole(server):
    long = json.loads(json.dumps(TWIN))
    node_of(long, "TCD_Scheduler").update(steps=1000, grid="dense")
    node_of(long, "RandomNoise").update(noise_seed=123)
    begun = []

    def watch(done, title):
        if "Sampler" in title and done % 1 > 0:
            begun.append(title)

    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.run_workflow, server, long, watch)
        while not begun and not running.done():
            time.sleep(0.05)
        urllib.request.urlopen(urllib.request.Request(f"{server}/interrupt", b"", method="POST")).close()
        asked = time.monotonic()
        with pytest.raises(client.WorkflowError, match="interrupted at node"):
            running.result(timeout=120)
        took = time.monotonic() - asked
    assert begun
    assert took < 10  # a thousand evaluations would take a minute
    outputs = client.run_workflow(server, TWIN)
    assert any(shown.get("images") for shown in outputs.values())


@pytest.mark.browser
@pytest.mark.slow
def test_the_setting_puts_tcd_into_the_stock_ksampler(tmp_path, chromium):
    user = tmp_path / "user" / "default"
    user.mkdir(parents=True)
    (user / "comfy.settings.json").write_text(json.dumps({"TCD.StockNames": True}), encoding="utf-8")
    with demo_server.server_process(demo_server.comfyui_folder(), sys.executable, tmp_path) as (_, url):
        with browser.front_end(url, chromium) as page:
            told = page.evaluate(
                """() => { const node = LiteGraph.createNode('KSampler'); app.graph.add(node)
                    return node.widgets.map(w => [w.name, w.options?.values ?? [], w.tooltip ?? '']) }"""
            )
            lists = {name: (values, tooltip) for name, values, tooltip in told}
            assert {"tcd", "tcd_smooth", "tcd_detail"} <= set(lists["sampler_name"][0])
            assert "tcd" in lists["scheduler"][0]
            assert "tcd_smooth gamma 0" in lists["sampler_name"][1]
            assert page.evaluate("app.extensionManager.setting.get('TCD.StockNames')") is True
        graph = stock_graph(json.loads(json.dumps(TWIN)))
        assert any(shown.get("images") for shown in client.run_workflow(url, graph).values())


def stock_graph(graph):
    """The tiny workflow with the stock KSampler in place of ours."""
    found = {node["class_type"]: number for number, node in graph.items()}
    model = node_of(graph, "TCD_RecordTrajectory")["model"]
    prompt, latent = [found["CLIPTextEncode"], 0], [found["EmptyLatentImage"], 0]
    sampler = {"seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "tcd", "scheduler": "tcd", "denoise": 1.0}
    sampler |= {"model": model, "positive": prompt, "negative": prompt, "latent_image": latent}
    kept = ("TCD_TinyLoader", "TCD_LoraLoader", "CLIPTextEncode", "EmptyLatentImage")
    made = {number: node for number, node in graph.items() if node["class_type"] in kept}
    made["100"] = {"class_type": "KSampler", "inputs": sampler}
    made["101"] = {
        "class_type": "VAEDecode",
        "inputs": {"samples": ["100", 0], "vae": [found["TCD_TinyLoader"], 2]},
    }
    made["102"] = {"class_type": "PreviewImage", "inputs": {"images": ["101", 0]}}
    return made
