"""TCD_LoraLoader: a LoRA loader that says what it matched, and refuses what does not fit."""

import logging

import comfy.lora
import comfy.lora_convert
import folder_paths
from comfy_api.latest import io

from .. import tcd
from . import adapt


def modules_of(keys) -> set[str]:
    """Names of the modules that a LoRA file adapts."""
    return {tcd.lora.PART.sub("", key) for key in keys}


def apply(model, path: str, strength: float):
    """(patched clone, what was matched in words). Raises ValueError when no key fits the model."""
    state, metadata = tcd.lora.read(path)
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(state)), key_map, log_missing=False)
    patched = model.clone()
    matched = len(patched.add_patches(patches, strength))
    total = len(modules_of(state))
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if matched == 0:
        raise ValueError(
            f"{name}: none of its {total} modules is in this model; its first key is {min(state, default='none')!r}"
        )
    report = f"{name}: {matched} of {total} modules matched" + describe(metadata)
    if matched < total:
        logging.warning("%s; the others belong to another model or to a text encoder", report)
    return patched, report


def describe(metadata: dict[str, str]) -> str:
    """Base model, rank and method, as far as the file tells."""
    labels = {"ss_base_model_version": "base", "ss_network_dim": "rank", "tcd.method": "method", "tcd.tcf": "order"}
    known = [f"{label} {metadata[key]}" for key, label in labels.items() if key in metadata]
    return "; " + ", ".join(known) if known else ""


class LoraLoader(io.ComfyNode):
    """Loads a distilled LoRA into the model."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TCD_LoraLoader",
            display_name="TCD LoRA Loader",
            category=adapt.CATEGORY,
            description="Loads a TCD LoRA and says how much of it fitted the model; refuses a LoRA that does not fit.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("lora", options=folder_paths.get_filename_list("loras"), tooltip="A .safetensors LoRA."),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip="1 is as distilled."),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="report")],
        )

    @classmethod
    def execute(cls, model, lora, strength):
        if not lora.lower().endswith(".safetensors"):
            raise ValueError(f"{lora}: only .safetensors files are read; other formats can run code when opened")
        model, report = apply(model, folder_paths.get_full_path_or_raise("loras", lora), strength)
        return io.NodeOutput(model, report, ui={"tcd_report": [report]})
