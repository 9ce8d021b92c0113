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
from comfy_extras.nodes_custom_sampler import SamplerCustom

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


def check_host() -> None:
    """Raises RuntimeError, which ComfyUI shows as it starts, where its own SamplerCustom is not of the V3 API yet."""
    if not hasattr(SamplerCustom, "execute"):
        raise RuntimeError("the TCD nodes need ComfyUI 0.3.75 or later: update ComfyUI, and start it again")


class Extension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes. Also shows the embedded LoRAs in every LoRA list: not all hosts call `on_load`."""
        check_host()
        folder_paths.add_model_folder_path("loras", str(LORAS))
        if stock.asked_for():
            stock.register()
        return NODES
