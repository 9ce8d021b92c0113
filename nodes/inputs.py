"""Inputs that several nodes share: one default, one range, one tooltip each."""

from comfy_api.latest import io

from .. import tcd
from .gammas import GammasType
from .sampler import ENDS
from .settings import SettingsType

GRIDS = {"distillation": 20, "dense": 1}  # name -> k, the spacing of the times that steps are chosen from


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless `value` is in the range; so does ComfyUI, but for nan, which it lets through."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value:g}")


def gamma():
    return io.Float.Input(
        "gamma",
        default=0.3,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="How much noise is put back at each step (diffusers and Hyper-SD call it eta). 0 = deterministic, "
        "smoother; 0.2-0.5 = more detail; 1 = like LCM. With more steps TCD's authors advise more, Hyper-SD's less.",
    )


def order():
    return io.Combo.Input(
        "order",
        options=list(tcd.TCF),
        default="1",
        tooltip="Order of the trajectory consistency function. 1 is the paper's best. 2 costs twice the evaluations "
        "and scored slightly worse (4 steps: FID 13.35 against 12.68). s+ needs a LoRA that was trained for it.",
    )


def last_step():
    return io.Combo.Input(
        "last_step",
        options=list(ENDS),
        default="x0",
        tooltip="Where the last step lands. x0 = the clean picture, as in the paper and every ComfyUI sampler. t0 = a "
        "trace of noise is left, as diffusers does: for comparison with it.",
    )


def seed(tooltip: str):
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def steps():
    return io.Int.Input(
        "steps", default=4, min=1, max=1000, tooltip="Steps, each of one network evaluation at order 1: 2-8 for TCD."
    )


def denoise():
    return io.Float.Input(
        "denoise",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="Below 1, keeps that part of the input latent (image to image).",
    )


def grid():
    return io.Combo.Input(
        "grid",
        options=list(GRIDS),
        default="distillation",
        tooltip="distillation: the 50 times that TCD and LCM LoRAs know, up to 50 steps. dense: all 1,000.",
    )


def gammas():
    return GammasType.Input(
        "gammas", optional=True, tooltip="From TCD Gamma Schedule: gamma changes along the way. Replaces gamma."
    )


def settings(replaces: str):
    return SettingsType.Input(
        "settings", optional=True, tooltip=f"From TCD LoRA Loader: what suits the LoRA. Replaces {replaces}."
    )
