"""The nodes: thin wrappers of `tcd` in ComfyUI's V3 API. `adapt` is the only file that knows ComfyUI's units.

sampling.py, lora.py, trajectory.py, compare.py, tiny.py   the nodes
sampler.py      what ComfyUI calls to sample; noise.py, masks.py, gammas.py: its parts
target_time.py  the s-embedding of TCF(S+) in a UNet
lora_match.py   which weight a LoRA's module is for; settings.py: which gamma, steps and cfg suit which LoRA
recorder.py     what a recording model remembers; view.py: as pictures and numbers for the front end
methods.py      the ways to sample that TCD_Compare knows; sheet.py draws its sheets
inputs.py, schema.py   inputs that nodes share; schemas on older hosts
stock.py        opt-in names in ComfyUI's own lists
"""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from . import stock
from .compare import Compare
from .lora import LoraLoader
from .sampling import GammaSchedule, KSampler, Sampler, Scheduler
from .tiny import TinyLoader
from .trajectory import RecordTrajectory, ViewTrajectory

LORAS = Path(__file__).resolve().parent.parent / "demo" / "loras"
NODES = [
    Sampler,
    Scheduler,
    GammaSchedule,
    KSampler,
    LoraLoader,
    RecordTrajectory,
    ViewTrajectory,
    Compare,
    TinyLoader,
]


class Extension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes. Also shows the embedded LoRAs in every LoRA list: not all hosts call `on_load`."""
        folder_paths.add_model_folder_path("loras", str(LORAS))
        if stock.asked_for():
            stock.register()
        return NODES
