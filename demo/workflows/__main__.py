"""Write the shipped workflows anew, and their thumbnails.

    python -m demo.workflows                          # workflows/*.json and workflows/api/*.json
    python -m demo.workflows --thumbnails             # workflows/*.jpg too: Chromium and a minute
    python -m demo.workflows --screenshots FOLDER     # large pictures of all graphs on both renderers, to look at

No model is needed: a workflow of the tiny model is shown by the pictures that it makes, any other by its graph. That of
a pack which the host does not have is left as it is.
"""

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from demo import client
from demo.server import comfyui_folder, server_process
from demo.workflows import FOLDER, WORKFLOWS, browser, kinds_of, other_packs, texts
from demo.workflows.builder import Graph
from demo.workflows.files import FILES
from demo.workflows.sd15 import EXAMPLE
from demo.workflows.ui_format import document

WIDTH, QUALITY = 512, 80  # of a thumbnail; JPEG's quality


def write(base_url: str) -> None:
    """Every JSON file below workflows/, as it should be."""
    for path, text in texts(kinds_of(base_url)).items():
        (FOLDER / path).write_text(text, encoding="utf-8")


def shelf(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size: beside each other where they are square, else below each other."""
    width, height = pictures[0].size
    across, down = (len(pictures), 1) if width == height else (1, len(pictures))
    canvas = Image.new("RGB", (width * across, height * down))
    for i, picture in enumerate(pictures):
        canvas.paste(picture, (width * i, 0) if down == 1 else (0, height * i))
    return canvas


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of any size below each other, all as wide as a thumbnail."""
    scaled = [one.resize((WIDTH, round(one.height * WIDTH / one.width)), Image.Resampling.LANCZOS) for one in pictures]
    canvas, top = Image.new("RGB", (WIDTH, sum(one.height for one in scaled))), 0
    for one in scaled:
        canvas.paste(one, (0, top))
        top += one.height
    return canvas


def made(base_url: str, graph: Graph) -> Image.Image:
    """What a workflow makes, all that its nodes show."""
    prompt = graph.prompt()
    outputs = client.run_workflow(base_url, prompt)
    with tempfile.TemporaryDirectory() as folder:
        paths = client.fetch(base_url, prompt, outputs, Path(folder))
        found: dict[str, list[Image.Image]] = {}
        for (node, _), path in zip(client.pictures(outputs), paths, strict=True):
            found.setdefault(node, []).append(Image.open(path).convert("RGB"))
    return stacked([shelf(pictures) for pictures in found.values()])


def shown(page: Any, graph: Graph, vue: bool, note: bool) -> Image.Image:
    """A workflow's graph."""
    browser.open_workflow(page, document(graph), vue)
    return Image.open(io.BytesIO(browser.picture(page, note))).convert("RGB")


def complete(kinds: dict[str, dict]) -> dict[str, Graph]:
    """All workflows of which the server has every node."""
    graphs = {name: build(kinds) for name, build in WORKFLOWS.items()}
    return {name: graph for name, graph in graphs.items() if all(node.name in kinds for node in graph.nodes)}


def thumbnail(name: str, picture: Image.Image) -> None:
    """A JPEG beside the workflow: what is taller than wide is cut below."""
    scaled = stacked([picture])
    scaled.crop((0, 0, WIDTH, min(scaled.height, WIDTH))).save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)


def screenshots(page: Any, graphs: dict[str, Graph], folder: Path) -> None:
    """PNGs of all graphs as both renderers draw them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in tqdm(graphs.items(), desc="screenshots"):
        for vue in (False, True):
            shown(page, graph, vue, note=True).save(folder / f"{name}_{'vue' if vue else 'litegraph'}.png")


def show(base_url: str, chromium: str, thumbnails: bool, folder: Path | None) -> None:
    """Thumbnails, and screenshots into `folder` if there is one."""
    graphs = complete(kinds_of(base_url))
    tiny = {name: graph for name, graph in graphs.items() if name.startswith("tiny_")}
    if thumbnails:
        for name, graph in tqdm(tiny.items(), desc="pictures"):
            thumbnail(name, made(base_url, graph))
    with browser.front_end(base_url, chromium) as page:
        for name in tqdm([name for name in graphs if thumbnails and name not in tiny], desc="graphs"):
            thumbnail(name, shown(page, graphs[name], vue=True, note=False))
        if folder:
            screenshots(page, graphs, folder)


def stage(folder: Path) -> Path:
    """Every file that a workflow names, empty, and ComfyUI's example picture: the front end wants to see them listed.

    Returns the models folder.
    """
    for name, file in FILES.items():
        path = folder / "models" / file.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "input").mkdir()
    shutil.copy(comfyui_folder() / "input" / EXAMPLE, folder / "input")
    return folder / "models"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thumbnails", action="store_true", help="make the thumbnails too")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="write large pictures of the graphs there")
    options = parser.parse_args()
    chromium = browser.chromium_path()
    if chromium is None and (options.thumbnails or options.screenshots):
        parser.error(f"none of {', '.join(browser.CHROMIUM)} is on PATH: install Chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        server = server_process(comfyui_folder(), sys.executable, folder, models=stage(folder), packs=other_packs())
        with server as (_, base_url):
            write(base_url)
            if chromium and (options.thumbnails or options.screenshots):
                show(base_url, chromium, options.thumbnails, options.screenshots)


if __name__ == "__main__":
    main()
