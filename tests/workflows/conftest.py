"""One server for all tests of workflows: with random weights of the true architectures, and a picture to load.

TCD_SDXL=folder also makes and runs SDXL, below that folder: 7 GB of disk, 16 GB of memory, minutes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from demo import server, workflows

SDXL = os.environ.get("TCD_SDXL", "")
MODELS = Path(SDXL) if SDXL else server.ROOT / ".cache" / "models"


@dataclass
class Host:
    """A running server: its address, and the end of its log that has not been read yet."""

    url: str
    log: Path
    read: int = 0

    def said(self) -> str:
        """What the server logged since the last call."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        start, self.read = self.read, len(text)
        return text[start:]


def example(path: Path) -> None:
    """A small picture of a disc, with a transparent middle: LoadImage makes a mask of it."""
    image = Image.new("RGBA", (64, 64), "orange")
    draw = ImageDraw.Draw(image)
    draw.ellipse((12, 12, 52, 52), fill="navy")
    draw.rectangle((24, 24, 40, 40), fill=(0, 0, 0, 0))
    path.parent.mkdir(parents=True)
    image.save(path)


@pytest.fixture(scope="session")
def weights() -> Path:
    """A folder of random weights: made once, and kept."""
    only = ["sd15", "sd3", *(["sdxl"] if SDXL else []), *(["ip_adapter"] if workflows.other_packs() else [])]
    command = [sys.executable, "-m", "demo.checkpoints", str(MODELS), "--only", *only]
    subprocess.run(command, cwd=server.ROOT, check=True)
    return MODELS


@pytest.fixture(scope="session")
def host(weights, tmp_path_factory) -> Iterator[Host]:
    """A server with these weights, and with the packs that a workflow uses where the host has them."""
    folder = tmp_path_factory.mktemp("server")
    example(folder / "input" / "example.png")
    log = folder / "server.log"
    kept, server.LOG = server.LOG, log  # the log of its own: other tests start a server too
    try:
        running = server.server_process(
            server.comfyui_folder(), sys.executable, folder, models=weights, packs=workflows.other_packs()
        )
        with running as (_, url):
            server.LOG = kept
            yield Host(url, log)
    finally:
        server.LOG = kept


@pytest.fixture(scope="session")
def kinds(host) -> dict[str, dict]:
    """/object_info."""
    return workflows.kinds_of(host.url)
