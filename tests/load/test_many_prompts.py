"""Hundreds of prompts in a row, queued on one real ComfyUI: no wrong result, no memory that is not given back."""

import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import torch
from host_process import ROOT, run
from load.random_graphs import Graph, direct, long_graph, random_graph
from safetensors.torch import load_file

from demo import client
from demo import server as demo_server

pytestmark = [pytest.mark.host, pytest.mark.slow]

PROMPTS, WARM_UP = 500, 200  # by which PyTorch has met most sizes, for each of which it keeps kernels
SPAN = 50  # prompts of whose memory the least counts: drawn plots are garbage until ComfyUI lets Python collect it
INTERRUPTED = 25  # one in so many is cancelled on its way
GROWTH = 0.02
PROBES = ROOT / "tests" / "faults" / "host"


@dataclass
class Server:
    """A running ComfyUI: its process, its address, and where it writes."""

    process: psutil.Process
    url: str
    folder: Path

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        return self.process.memory_info().rss

    def read(self, file: dict[str, str]) -> dict[str, torch.Tensor]:
        """The tensors of a file that a node wrote, as the front end names it."""
        root = self.folder / {"output": "output", "temp": "temp/temp"}[file["type"]]
        return load_file(root / file["subfolder"] / file["filename"])


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """With PyTorch's attention: a server without accelerator splits its own by the memory that is free just then.

    Its allocator gives freed blocks back at once, so that resident memory is what is held and not the highest peak.
    """
    folder, host, command = tmp_path_factory.mktemp("server"), demo_server.comfyui_folder(), demo_server.server_command

    def with_attention(*args: Any) -> list[str]:
        return [*command(*args), "--use-pytorch-cross-attention"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_server, "server_command", with_attention)
        for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):  # glibc's, else up to 32 and 64 MiB
            patch.setenv(name, str(2**18))
        running = demo_server.server_process(host, sys.executable, folder, models=PROBES, packs=["probes.py"])
        with running as (process, url):
            yield Server(psutil.Process(process.pid), url, folder)


@pytest.fixture
def tiny() -> Iterator[tuple]:
    """The tiny model, where attention is what it is in the server."""
    made, before = run("TCD_TinyLoader"), torch.backends.cuda.flash_sdp_enabled()
    torch.backends.cuda.enable_flash_sdp(True)
    yield made
    torch.backends.cuda.enable_flash_sdp(before)


def check(server: Server, graph: Graph, outputs: client.Outputs, tiny: tuple) -> None:
    """The latent that was saved, and the trajectory that was shown, are those of the same nodes in this process."""
    made = {"tiny": tiny}
    wanted = direct(graph, "sampled", made)
    (saved,) = outputs["saved"]["latents"]
    assert torch.equal(server.read(saved)["latent_tensor"], wanted[0]["samples"]), graph
    if "view" in graph:
        recorder = made["recorded"][1] if "recorded" in made else wanted[2]
        path, shown = recorder.trajectory().tensors(), server.read(outputs["view"]["tcd_view"][0]["files"]["data"])
        assert path.keys() == shown.keys()
        assert all(torch.equal(shown[name], tensor) for name, tensor in path.items()), graph


def cancel(server: Server, graph: Graph, log: Path, after: int) -> int:
    """Queue the workflow and press Cancel after so many evaluations; returns how many began after that."""
    pressed = []

    def watch(done: float, title: str) -> None:
        if not pressed and log.exists() and log.stat().st_size >= after:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/interrupt", b"", method="POST")).close()
            pressed.append(done)

    with pytest.raises(client.WorkflowError, match=r"interrupted at node sampled \(TCD_KSampler\)"):
        client.run_workflow(server.url, graph, watch)
    assert pressed
    return log.read_text().count("c")


def test_five_hundred_prompts_are_right_and_take_no_more_memory_than_the_first_ones(server, tiny, tmp_path, capsys):
    random, resident, late = Random(0), [], []
    begun = time.monotonic()
    for number in range(PROMPTS):
        name = f"load/{number:03d}"
        if number % INTERRUPTED == INTERRUPTED - 1:
            log = tmp_path / f"{number}.log"
            late.append(cancel(server, long_graph(random, name, log), log, random.randint(1, 12)))
        else:
            graph = random_graph(random, name)
            check(server, graph, client.run_workflow(server.url, graph), tiny)
        resident.append(server.resident / 2**20)
    seconds = time.monotonic() - begun
    before, after = (min(part) for part in (resident[WARM_UP : WARM_UP + SPAN], resident[-SPAN:]))
    figures = [
        f"{PROMPTS} prompts in {seconds:.0f} s",
        f"{len(late)} of them cancelled, {max(late)} evaluations begun after that at most",
        f"resident memory of the server: {before:.1f} MiB after {WARM_UP} prompts, {after:.1f} MiB at the end, "
        f"{100 * (after / before - 1):+.2f}%, from {min(resident[WARM_UP:]):.1f} to {max(resident):.1f} MiB between",
    ]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(figures) + "\n")
    assert max(late) <= 1
    assert after <= before * (1 + GROWTH), f"every 25th: {[*map(round, resident[::25])]}"


@pytest.mark.parametrize("fails_at", [1, 3])
def test_out_of_memory_is_told_as_comfyui_tells_it_and_the_next_prompt_is_right(server, tiny, tmp_path, fails_at):
    random = Random(fails_at)
    failing = long_graph(random, "memory", tmp_path / "log")
    failing["probe"]["inputs"]["fails_at"] = fails_at
    told = r"node sampled \(TCD_KSampler\): the test's memory is full\nThis error means you ran out of memory"
    with pytest.raises(client.WorkflowError, match=rf"(?s){told}.*\[torch\.OutOfMemoryError\]"):
        client.run_workflow(server.url, failing)
    assert (tmp_path / "log").read_text() == "." * fails_at
    graph = random_graph(random, "next")
    check(server, graph, client.run_workflow(server.url, graph), tiny)
