"""The nodes: thin wrappers of `tcd` in ComfyUI's V3 API. `adapt` is the only file that knows ComfyUI's units."""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .lora import LoraLoader
from .sampling import Sampler, Scheduler
from .tiny import TinyLoader
from .trajectory import RecordTrajectory, ViewTrajectory

LORAS = Path(__file__).resolve().parent.parent / "demo" / "loras"


class Extension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes. Also shows the embedded LoRAs in every LoRA list: not all hosts call `on_load`."""
        folder_paths.add_model_folder_path("loras", str(LORAS))
        return [Sampler, Scheduler, LoraLoader, RecordTrajectory, ViewTrajectory, TinyLoader]
