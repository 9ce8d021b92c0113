"""Every workflow, queued on a real server and run to its end: on the tiny model, or on random weights."""

import os
import re

import pytest
from PIL import Image

from demo import client
from demo.workflows import WORKFLOWS
from demo.workflows.sd15 import IP_ADAPTER_PACK

pytestmark = pytest.mark.host

SIDE = 64  # pixels: random weights make noise of any size
TINY = [name for name in WORKFLOWS if name.startswith("tiny_")]
SMALL = [name for name in WORKFLOWS if name.startswith(("sd15_", "sd3_"))]
LARGE = [name for name in WORKFLOWS if name.startswith("sdxl_")]
TOO_LARGE = "SDXL takes 7 GB of disk and 16 GB of memory: name a folder for it in TCD_SDXL"
TROUBLE = re.compile(r"not loaded|missing|unexpected|invalid value|warning|error|traceback|\bnan\b", re.IGNORECASE)


def small(prompt: client.Graph) -> client.Graph:
    """The workflow at a size that a CPU draws in a moment."""
    sides = {"width": SIDE, "height": SIDE}
    return {
        number: node | {"inputs": node["inputs"] | {key: sides[key] for key in sides.keys() & node["inputs"].keys()}}
        for number, node in prompt.items()
    }


def check(host, prompt: client.Graph, folder) -> None:
    """It runs to its end, shows pictures that hold more than one colour, and the server has nothing to complain of."""
    host.said()
    outputs = client.run_workflow(host.url, prompt)
    paths = client.fetch(host.url, prompt, outputs, folder)
    assert paths
    for path in paths:
        with Image.open(path) as image:
            assert image.getcolors(1) is None
    said = host.said()
    assert "got prompt" in said
    assert [line for line in said.splitlines() if TROUBLE.search(line)] == []


@pytest.mark.parametrize("name", TINY)
def test_the_tiny_model(host, kinds, tmp_path, name):
    check(host, WORKFLOWS[name](kinds).prompt(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_random_weights(host, kinds, tmp_path, name):
    prompt = small(WORKFLOWS[name](kinds).prompt())
    if any(node["class_type"] not in kinds for node in prompt.values()):
        pytest.skip(f"{IP_ADAPTER_PACK} is not in this host's custom_nodes")
    check(host, prompt, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TCD_SDXL"), reason=TOO_LARGE)
@pytest.mark.parametrize("name", LARGE)
def test_random_weights_of_sdxl(host, kinds, tmp_path, name):
    check(host, small(WORKFLOWS[name](kinds).prompt()), tmp_path)
