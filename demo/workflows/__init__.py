"""The shipped workflows, as Python; `python -m demo.workflows` writes them as the JSON files of workflows/."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

from demo.server import comfyui_folder
from demo.workflows import sd15, sdxl, tiny
from demo.workflows.builder import Graph
from demo.workflows.ui_format import document

FOLDER = Path(__file__).resolve().parent.parent.parent / "workflows"

# File name -> what builds it from the server's /object_info.
WORKFLOWS: dict[str, Callable[[dict], Graph]] = {
    "tiny_tcd": tiny.tcd,
    "tiny_gamma_sweep": tiny.gamma_sweep,
    "tiny_orders": tiny.orders,
    "tiny_solvers": tiny.solvers,
    "tiny_trajectories": tiny.trajectories,
    "tiny_sheet": tiny.sheet,
    "sd15_tcd": sd15.tcd,
    "sd15_img2img": sd15.img2img,
    "sd15_inpaint": sd15.inpaint,
    "sd15_hires": sd15.hires,
    "sd15_controlnet_canny": sd15.canny,
    "sd15_controlnet_depth": sd15.depth,
    "sd15_ip_adapter": sd15.ip_adapter,
    "sdxl_tcd": sdxl.tcd,
    "sdxl_all_in_one": sdxl.all_in_one,
    "sdxl_style_lora": sdxl.style_lora,
    "sdxl_animagine": sdxl.animagine,
    "sdxl_hyper_sd": sdxl.hyper_sd,
    "sdxl_pcm": sdxl.pcm,
    "sd3_tcd": sdxl.sd3,
}
API = "tiny_tcd"  # the one that dev.py runs without a front end: also shipped in API format


def kinds_of(base_url: str) -> dict[str, dict]:
    """What a running server says of its nodes."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names
    with direct.open(f"{base_url}/object_info") as answer:
        return json.load(answer)


def other_packs() -> list[str]:
    """The packs, besides this one, that a workflow uses and this host has."""
    return [name for name in (sd15.IP_ADAPTER_PACK,) if (comfyui_folder() / "custom_nodes" / name).is_dir()]


def texts(kinds: dict[str, dict]) -> dict[Path, str]:
    """Every shipped file below FOLDER with what it should hold."""
    graphs = {name: build(kinds) for name, build in WORKFLOWS.items()}
    contents = {Path(f"{name}.json"): document(graph) for name, graph in graphs.items()}
    contents[Path("api", f"{API}.json")] = graphs[API].prompt()
    return {path: json.dumps(content, indent=1) + "\n" for path, content in contents.items()}
