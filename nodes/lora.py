"""TCD_LoraLoader: a LoRA loader that says what it matched and how to sample with it, and refuses what does not fit."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import folder_paths
from comfy_api.latest import io

from .. import tcd
from ..tcd import embed as s_embedding
from . import inputs, target_time
from .lora_match import STRANGER, Match, match
from .schema import schema
from .settings import UNKNOWN, Settings, SettingsType, recommended


def check_fits(found: Match, embed: tcd.TargetTime | None) -> None:
    """Raises ValueError where no module fits; with both shapes where these are the reason for one of them.

    A file with an embedding of s alone belongs to a checkpoint that was trained as a whole.
    """
    if found.fitting or (embed is not None and not found.total):
        return
    if not found.misfits:
        reason = "connect clip to load its text encoder" if found.left_out else "it is empty"
    else:
        module, why = min(found.misfits.items(), key=lambda item: item[1] == STRANGER)
        reason = f"for example {module!r}: {why}"
    raise ValueError(f"none of its {found.total} modules fits this model; {reason}")


def with_order(settings: Settings, embed: tcd.TargetTime | None) -> Settings:
    """The settings, of order s+ for a file that embeds s. Raises ValueError for one that only says so."""
    if embed is None and settings.order == "s+":
        raise ValueError(f"it is of order s+, but has no {s_embedding.PREFIX} tensors, which tell the target time")
    return settings if embed is None else replace(settings, order="s+")


def describe(found: Match, metadata: Mapping[str, str], settings: Settings) -> str:
    """Base model and rank, as far as they are known; method and order."""
    base = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    rank = "-".join(map(str, sorted({min(found.ranks), max(found.ranks)}))) if found.ranks else None
    words = {"base": base, "rank": rank or metadata.get("ss_network_dim"), "method": settings.method}
    known = [f"{label} {word}" for label, word in words.items() if word is not None]
    return ", ".join([*known, f"order {settings.order}"])


def some(misfits: Mapping[str, str]) -> str:
    """Up to three of the modules that do not fit, and why."""
    named = "; ".join(f"{module}: {why}" for module, why in list(misfits.items())[:3])
    return named + ("; ..." if len(misfits) > 3 else "")


def report_of(found: Match, metadata: Mapping[str, str], settings: Settings) -> str:
    """What was matched, and how to sample with it, in lines."""
    guess = " (a guess: neither its metadata nor its name is known)" if settings.method == UNKNOWN.method else ""
    lines = [
        f"{len(found.fitting)} of {found.total} modules matched; {describe(found, metadata, settings)}",
        f"recommended: gamma {settings.gamma:g}, {settings.steps} steps, cfg {settings.cfg:g}{guess}",
    ]
    if found.left_out:
        lines.append(f"left out: {len(found.left_out)} of a text encoder; connect clip to load them")
    if found.misfits:
        lines.append(f"do not fit: {len(found.misfits)}: {some(found.misfits)}")
    return "\n".join(lines)


def patched(patcher, found: Match, strength: float):
    """A clone of a MODEL or CLIP with those patches that are for it; None of none."""
    if patcher is None:
        return None
    patcher = patcher.clone()
    patcher.add_patches(found.patches, strength)
    return patcher


def apply(path: str, lora: str, strength: float, model, clip=None) -> tuple:
    """(patched clones of the model and of the clip, settings, report) of the LoRA file `path`.

    `lora` is its name below the folder of LoRAs. Raises ValueError for a file that does not fit, or is broken.
    """
    state, metadata = tcd.lora.read(path)
    embed = s_embedding.from_tensors(state)
    settings = with_order(recommended(metadata, lora), embed)
    found = match(path, {k: v for k, v in state.items() if not k.startswith(s_embedding.PREFIX)}, metadata, model, clip)
    check_fits(found, embed)
    if found.misfits:
        logging.warning(
            "%s: %d of %d modules do not fit: %s", lora, len(found.misfits), found.total, some(found.misfits)
        )
    loaded = patched(model, found, strength)
    if embed is not None:
        loaded = target_time.install(loaded, embed, strength)
    return loaded, patched(clip, found, strength), settings, report_of(found, metadata, settings)


class LoraLoader(io.ComfyNode):
    """Loads a distilled LoRA into the model, and says how to sample with it."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_LoraLoader",
            display_name="TCD LoRA Loader",
            search_aliases=["lcm lora", "hyper-sd lora", "pcm lora", "distilled lora", "load lora"],
            description="Loads a LoRA of TCD, LCM, Hyper-SD, PCM or another kind; says how much of it fitted the model "
            "and how to sample with it; refuses a LoRA that does not fit.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the LoRA was made for, such as SD 1.5 or SDXL."),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A .safetensors file of models/loras, of kohya's, diffusers', PEFT's or LyCORIS' naming. "
                    "Other formats are refused: they can run code when opened.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of the LoRA: 1 = as distilled, 0 = none of it. For the model and for clip.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Only for a LoRA that changes the text encoder too; few distilled ones do. The report says "
                    "if something was left out because this is not connected.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.Clip.Output(tooltip="clip with the LoRA in it; nothing if none is connected."),
                SettingsType.Output(
                    display_name="settings", tooltip="Gamma, order and steps that suit this LoRA, for the TCD nodes."
                ),
                io.Float.Output(
                    display_name="cfg", tooltip="The guidance that suits this LoRA, for any guider or sampler."
                ),
                io.String.Output(display_name="report", tooltip="What was matched, and how to sample with it."),
            ],
        )

    @classmethod
    def execute(cls, model, lora, strength, clip=None):
        inputs.check_number("strength", strength, -10, 10)
        if not isinstance(lora, str) or not lora.lower().endswith(".safetensors"):
            raise ValueError(f"lora {lora!r}: only .safetensors files are read; other formats can run code when opened")
        try:
            path = folder_paths.get_full_path_or_raise("loras", lora)
            model, clip, settings, report = apply(path, lora, strength, model, clip)
        except ValueError as error:
            raise ValueError(f"{lora}: {error}") from error
        report = f"{lora}: {report}"
        return io.NodeOutput(model, clip, settings, settings.cfg, report, ui={"tcd_report": report.splitlines()})
