"""How a distilled LoRA wants to be sampled: as its file says, or as its authors published it under that name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from comfy_api.latest import io

from .. import tcd

SettingsType = io.Custom("TCD_SETTINGS")


@dataclass(frozen=True)
class Settings:
    """What to sample a LoRA with. `method` is what it was distilled by; "unknown" makes the rest a guess."""

    method: str
    gamma: float = 0.3
    steps: int = 4
    cfg: float = 1.0
    order: str = "1"


UNKNOWN = Settings("unknown")

# `tcd.method` in the metadata of our own trainer. gamma 1 is multistep consistency sampling, Algorithm 3: what CM, LCM
# and Direct CM are distilled for.
METHODS = {
    "tcd": Settings("tcd"),
    "lcm": Settings("lcm", gamma=1.0),
    "cm": Settings("cm", gamma=1.0),
    "direct_cm": Settings("direct_cm", gamma=1.0),
}

# How a published file is called -> its settings; a group `steps` of the name replaces theirs. The first that fits.
# gamma 0 is DDIM; diffusers' guidance 0 is cfg 1. Names are in lower case, with a space for every - and _.
PUBLISHED = {
    re.compile(pattern): settings
    for pattern, settings in {
        # PCM's model card (wangfuyun/PCM_Weights): DDIM with trailing times, as many steps as the name says; smallcfg:
        # 1 to 2; normalcfg: 2.5 to 3.5 at 4 steps, 3 to 6 at 8, and 7.5 in its demo; lcmlike: as LCM.
        r"\bpcm\b.*lcm ?like": Settings("PCM, like LCM", gamma=1.0),
        r"\bpcm\b.*normal ?cfg.*\b(?P<steps>16) ?step": Settings("PCM", gamma=0.0, cfg=7.5),
        r"\bpcm\b.*normal ?cfg.*\b(?P<steps>8) ?step": Settings("PCM", gamma=0.0, cfg=4.5),
        r"\bpcm\b.*normal ?cfg": Settings("PCM", gamma=0.0, cfg=3.0),
        r"\bpcm\b(.*\b(?P<steps>\d+) ?step)?": Settings("PCM", gamma=0.0),
        # Hyper-SD's model card (ByteDance/Hyper-SD): SD3's guidance is 3, 5 and 7 at 4, 8 and 16 steps, other CFG LoRAs
        # support 5 to 8; the others are without guidance, on DDIM with trailing times, and as many steps as the name
        # says. The one of 1 step, called unified, is for TCD at 1 to 8 steps: eta 1 at 1 step, lower with more.
        r"hyper ?sd3\b.*\b(?P<steps>4) ?steps? cfg": Settings("Hyper-SD, CFG", gamma=0.0, cfg=3.0),
        r"hyper ?sd3\b.*\b(?P<steps>16) ?steps? cfg": Settings("Hyper-SD, CFG", gamma=0.0, cfg=7.0),
        r"hyper ?(sd|flux).*\b(?P<steps>\d+) ?steps? cfg": Settings("Hyper-SD, CFG", gamma=0.0, cfg=5.0),
        r"hyper ?(sd|flux).*\b(1 ?step|unified)": Settings("Hyper-SD, unified", gamma=0.5),
        r"hyper ?(sd|flux).*\b(?P<steps>\d+) ?step": Settings("Hyper-SD", gamma=0.0),
        # LCM-LoRA's model cards (latent-consistency/lcm-lora-sdv1-5 and others): 4 steps, guidance off or 1 to 2.
        r"\blcm": Settings("LCM", gamma=1.0),
        # TCD's model cards (h1t/TCD-SD15-LoRA, h1t/TCD-SDXL-LoRA): 4 steps, no guidance, eta 0.3; the paper's is 0.2.
        r"\btcd": Settings("TCD"),
    }.items()
}


def published(name: str) -> Settings | None:
    """The settings of the LoRA that is published under this name, if there is one."""
    words = re.sub(r"[-_]", " ", name.lower())
    for pattern, settings in PUBLISHED.items():
        if match := pattern.search(words):
            steps = match.groupdict().get("steps")
            return replace(settings, steps=int(steps)) if steps else settings
    return None


# What our trainer says of its LoRA -> (its type, the smallest, the largest).
STATED = {"gamma": (float, 0, 1), "steps": (int, 1, 1000)}


def stated(metadata: Mapping[str, str]) -> dict[str, float]:
    """Gamma and steps as the metadata say. Raises ValueError for values that no sampler takes."""
    found = {}
    for name, (kind, low, high) in STATED.items():
        if (text := metadata.get(f"tcd.{name}")) is None:
            continue
        try:
            found[name] = kind(text)
        except ValueError:
            found[name] = float("nan")
        if not low <= found[name] <= high:
            raise ValueError(f"tcd.{name} in the metadata must be from {low} to {high}, got {text!r}")
    return found


def recommended(metadata: Mapping[str, str], name: str) -> Settings:
    """What to sample a LoRA file with: by the metadata of our trainer, else by the file's name, else by its folder's.

    `name` is the file's below the folder of LoRAs. A LoRA that nobody knows gets UNKNOWN. Raises ValueError for an
    order (`tcd.tcf`) that does not exist, and for a gamma or steps that no sampler takes.
    """
    if (method := metadata.get("tcd.method")) in METHODS:
        order = metadata.get("tcd.tcf", "1")
        tcd.choose(tcd.TCF, "tcd.tcf", order)
        return replace(METHODS[method], order=order, **stated(metadata))
    path = name.replace("\\", "/")
    return published(path.rsplit("/", 1)[-1]) or published(path) or UNKNOWN
