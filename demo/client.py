"""Queue a workflow on a running ComfyUI, follow its progress, fetch its pictures.

    python -m demo.client http://127.0.0.1:8188 output < workflow.json      (API format)

Needs aiohttp and tqdm, which ComfyUI itself needs. As a library: `run_workflow`, `fetch`.
"""

import argparse
import asyncio
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeAlias

import aiohttp
from tqdm import tqdm

Graph = dict[str, dict]  # node id -> {"class_type", "inputs", ...}: a workflow in API format
Outputs = dict[str, dict]  # node id -> what it showed, such as {"images": [{"filename", "subfolder", "type"}]}
Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[bool]"
OnProgress = Callable[[float, str], None]  # nodes done, with the running one's fraction; its title
LONG = aiohttp.ClientTimeout(total=None, sock_connect=10)  # sampling on a CPU may take very long


class WorkflowError(RuntimeError):
    """ComfyUI refused or failed the workflow; the message names node and reason."""


def title(graph: Graph, node_id: str) -> str:
    """What a person calls the node: its title in the front end, else its class."""
    node = graph.get(node_id, {})
    return node.get("_meta", {}).get("title") or node.get("class_type", "")


def refusal(graph: Graph, answer: dict) -> str:
    """ComfyUI's validation errors in words, a line for each."""
    lines = [
        f"node {node_id} ({title(graph, node_id)}): {error['message']}: {error['details']}"
        for node_id, node in answer.get("node_errors", {}).items()
        for error in node["errors"]
    ]
    error = answer.get("error", {})
    return "\n".join(lines) or f"{error.get('message', answer)} {error.get('details', '')}".strip()


async def queue(session: aiohttp.ClientSession, graph: Graph, client_id: str) -> str:
    """Queue the workflow; returns its prompt id. Raises WorkflowError if ComfyUI refuses any part of it."""
    async with session.post("/prompt", json={"prompt": graph, "client_id": client_id}) as response:
        answer = await response.json()
    if "prompt_id" not in answer or answer.get("node_errors"):
        raise WorkflowError(f"ComfyUI refused the workflow:\n{refusal(graph, answer)}")
    return answer["prompt_id"]


async def follow(socket: Socket, prompt_id: str, graph: Graph, report: OnProgress) -> None:
    """Report progress until the workflow has ended, well or badly."""
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:  # binary ones are previews
            continue
        event = json.loads(message.data)
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "progress_state":
            report(*progress(graph, data["nodes"]))
        elif kind == "executing" and data["node"] is None:
            return
    raise WorkflowError("ComfyUI went away while the workflow ran: its log says why")


def progress(graph: Graph, states: dict[str, dict]) -> tuple[float, str]:
    """How many nodes are done, with fractions, and which one is running."""
    done = sum(state["value"] / max(state["max"], 1) for node_id, state in states.items() if node_id in graph)
    running = [node_id for node_id, state in states.items() if state["state"] == "running"]
    return done, title(graph, running[-1]) if running else ""


async def results(session: aiohttp.ClientSession, prompt_id: str) -> Outputs:
    """What the nodes of a finished workflow showed. Raises WorkflowError with the node's own words if one failed."""
    async with session.get(f"/history/{prompt_id}") as response:
        entry = (await response.json())[prompt_id]
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_error":
            where = f"node {data['node_id']} ({data['node_type']})"
            raise WorkflowError(f"{where}: {data['exception_message'].strip()} [{data['exception_type']}]")
        if kind == "execution_interrupted":
            raise WorkflowError(f"interrupted at node {data['node_id']} ({data['node_type']})")
    return entry["outputs"]


async def run(base_url: str, graph: Graph, report: OnProgress) -> Outputs:
    client_id = uuid.uuid4().hex
    async with aiohttp.ClientSession(base_url, timeout=LONG) as session:
        # Connected first, or a quick workflow could be over before anybody listens. No limit: previews are large.
        async with session.ws_connect(f"/ws?clientId={client_id}", max_msg_size=0) as socket:
            prompt_id = await queue(session, graph, client_id)
            await follow(socket, prompt_id, graph, report)
        return await results(session, prompt_id)


def run_workflow(base_url: str, graph: Graph, on_progress: OnProgress = lambda done, title: None) -> Outputs:
    """Run a workflow in API format to its end and return {node id: what it showed}.

    `on_progress(done, title)` hears how many of the graph's nodes are done, fractions included, and which one runs.
    Raises WorkflowError, in words, if ComfyUI refuses the workflow or a node fails.
    """
    return asyncio.run(run(base_url, graph, on_progress))


def pictures(outputs: Outputs) -> Iterator[tuple[str, dict]]:
    """(node id, {"filename", "subfolder", "type"}) of every picture that the nodes showed."""
    for node_id, shown in sorted(outputs.items()):
        plots = [view["files"]["plot"] for view in shown.get("tcd_view", [])]
        for item in [*shown.get("images", []), *plots]:
            yield node_id, {key: item.get(key, "") for key in ("filename", "subfolder", "type")}


def next_run(folder: Path) -> str:
    """The first of demo_00001, demo_00002, ... of which the folder has no file: nothing is ever overwritten."""
    return next(name for name in (f"demo_{number:05d}" for number in count(1)) if not any(folder.glob(f"{name}_*")))


async def download(base_url: str, targets: list[tuple[Path, dict]]) -> None:
    async with aiohttp.ClientSession(base_url, timeout=LONG, raise_for_status=True) as session:
        for path, picture in targets:
            async with session.get("/view", params=picture) as response:
                path.write_bytes(await response.read())


def fetch(base_url: str, graph: Graph, outputs: Outputs, folder: Path) -> list[Path]:
    """Write every picture of a finished workflow below `folder`, named by run, node and number; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    run_name = next_run(folder)
    targets = []
    for number, (node_id, picture) in enumerate(pictures(outputs), 1):
        node = re.sub(r"[^a-z0-9]+", "_", title(graph, node_id).lower()).strip("_")
        targets.append((folder / f"{run_name}_{number}_{node}{Path(picture['filename']).suffix}", picture))
    asyncio.run(download(base_url, targets))
    return [path for path, _ in targets]


def run_with_bar(base_url: str, graph: Graph) -> Outputs:
    """run_workflow with a progress bar over the nodes."""
    layout = "{desc:24.24} {percentage:3.0f}%|{bar}| {n:.1f}/{total} nodes, {elapsed}"
    with tqdm(total=len(graph), bar_format=layout) as bar:

        def report(done: float, node: str) -> None:
            bar.set_description_str(node or bar.desc, refresh=False)
            bar.update(done - bar.n)

        outputs = run_workflow(base_url, graph, report)
        report(len(graph), "done")
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="where ComfyUI listens")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    graph = json.load(sys.stdin)
    try:
        outputs = run_with_bar(options.base_url, graph)
        paths = fetch(options.base_url, graph, outputs, options.folder)
    except (WorkflowError, aiohttp.ClientError) as error:
        sys.exit(str(error))
    print("\n".join(map(str, paths)) or "the workflow showed no pictures")


if __name__ == "__main__":
    main()
