"""The files that workflows name: below which folder of ComfyUI's models they go, and where they are published."""

from collections.abc import Iterator
from typing import NamedTuple

from demo.workflows.builder import Graph

EMBEDDED = "None: the model and its LoRAs come with this pack."


class File(NamedTuple):
    """One file. `where` is its repository on Hugging Face, or nothing; `remark` is what else there is to know."""

    folder: str
    where: str = ""
    remark: str = ""

    def source(self) -> str:
        """Where to get it, in Markdown."""
        link = f"[{self.where}](https://huggingface.co/{self.where})" if self.where else ""
        return ", ".join(filter(None, (link, self.remark)))


RENAMED = "there called pytorch_lora_weights.safetensors: rename it"
CONTROLNETS = "comfyanonymous/ControlNet-v1-1_fp16_safetensors"
FILES = {
    "v1-5-pruned-emaonly-fp16.safetensors": File(
        "checkpoints", "Comfy-Org/stable-diffusion-v1-5-archive", "or any SD 1.5 model"
    ),
    "TCD-SD15-LoRA.safetensors": File("loras", "h1t/TCD-SD15-LoRA", RENAMED),
    "control_v11f1p_sd15_depth_fp16.safetensors": File("controlnet", CONTROLNETS),
    "control_v11p_sd15_canny_fp16.safetensors": File("controlnet", CONTROLNETS),
    "ip-adapter_sd15.safetensors": File("ipadapter", "h94/IP-Adapter", "in its folder *models*"),
    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": File(
        "clip_vision", "h94/IP-Adapter", "there called models/image_encoder/model.safetensors: rename it"
    ),
    "sd_xl_base_1.0.safetensors": File("checkpoints", "stabilityai/stable-diffusion-xl-base-1.0", "or any SDXL model"),
    "animagine-xl-3.1.safetensors": File("checkpoints", "cagliostrolab/animagine-xl-3.1"),
    "TCD-SDXL-LoRA.safetensors": File("loras", "h1t/TCD-SDXL-LoRA", RENAMED),
    "papercut.safetensors": File("loras", "TheLastBen/Papercut_SDXL", "or any SDXL style"),
    "Hyper-SDXL-1step-lora.safetensors": File("loras", "ByteDance/Hyper-SD"),
    "pcm_sdxl_smallcfg_4step_converted.safetensors": File("loras", "wangfuyun/PCM_Weights", "in its folder *sdxl*"),
    "sd3_medium_incl_clips.safetensors": File("checkpoints", "stabilityai/stable-diffusion-3-medium"),
    "sd3_tcd_lora.safetensors": File("loras", "", "yours: none is published, see above"),
}


def named(graph: Graph) -> list[str]:
    """The files of FILES that a workflow names, in the order of its nodes."""
    given = [value for node in graph.nodes for value in node.given.values() if isinstance(value, str)]
    return [name for name in dict.fromkeys([*given, *graph.also]) if name in FILES]


def lines(graph: Graph) -> Iterator[str]:
    """A line of Markdown for each file, or one that says that none is needed."""
    for name in named(graph):
        yield f"- **models/{FILES[name].folder}/{name}**: {FILES[name].source()}"
    if not named(graph):
        yield EMBEDDED
