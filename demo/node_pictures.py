"""The pictures of the nodes' help pages: the embedded tiny model, sampled by the nodes themselves.

python -m demo.node_pictures            # writes web/docs/images/*.webp, in half a minute
"""

import argparse
import asyncio
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from demo import sheets
from demo.workflows.tiny import LCM, LORA
from tcd import plot
from training import host

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "web" / "docs" / "images"
SEED = 7
DPI = 150  # of small figures: the help panel is narrow, so letters have to be large in a picture
CURVE_COLOURS = (plot.DENOISE, plot.DIFFUSE, plot.GREEN, plot.PURPLE)
EMOJI = ("cat face", "panda", "red heart", "hamburger", "rocket", "castle", "sunflower", "strawberry")


@cache
def classes() -> dict[str, Any]:
    """Node classes by id: ComfyUI's own that are in use here, and ours as ComfyUI loads them."""
    host.start()
    theirs = importlib.import_module("nodes")  # ComfyUI's; this pack's folder of that name is never imported so
    extras = host.comfyui_folder() / "comfy_extras" / "nodes_custom_sampler.py"
    for path, parent in ((extras, "comfy_extras"), (ROOT, "custom_nodes")):
        asyncio.run(theirs.load_custom_node(str(path), module_parent=parent))
    return theirs.NODE_CLASS_MAPPINGS


def module(name: str) -> ModuleType:
    """A file of nodes/, of the pack as it was loaded."""
    package = classes()["TCD_Sampler"].__module__.rsplit(".", 1)[0]
    return importlib.import_module(f"{package}.{name}")


def run(node: str, **inputs: Any) -> tuple:
    """What a node gives."""
    found = classes()[node]
    with torch.inference_mode():
        if hasattr(found, "PREPARE_CLASS_CLONE"):
            return found.PREPARE_CLASS_CLONE({}).execute(**inputs).result
        return getattr(found(), found.FUNCTION)(**inputs)


@cache
def tiny() -> tuple:
    """MODEL, CLIP and VAE of the tiny model."""
    return run("TCD_TinyLoader")


@cache
def distilled(lora: str = LORA) -> Any:
    """Its MODEL with the TCD LoRA, or another."""
    return run("TCD_LoraLoader", model=tiny()[0], lora=lora, strength=1.0)[0]


def text(prompt: str) -> Any:
    return run("CLIPTextEncode", clip=tiny()[1], text=prompt)[0]


def empty() -> dict[str, Tensor]:
    return run("EmptyLatentImage", width=128, height=128, batch_size=1)[0]


def sampled(prompt: str, model: Any = None, steps: int = 4, gamma: float = 0.3) -> tuple:
    """latent, denoised and trajectory of TCD KSampler, from the same noise every time."""
    conds = {"positive": text(prompt), "negative": text(""), "latent": empty()}
    rest = {"cfg": 1.0, "order": "1", "denoise": 1.0, "grid": "distillation", "last_step": "x0"}
    return run("TCD_KSampler", model=model or distilled(), seed=SEED, steps=steps, gamma=gamma, **conds, **rest)


def decoded(latent: dict[str, Tensor]) -> Tensor:
    """Pictures [n, H, W, 3] in [0, 1]."""
    return run("VAEDecode", samples=latent, vae=tiny()[2])[0]


def painted(prompt: str, **how: Any) -> Tensor:
    """One picture [H, W, 3]; `how` as in `sampled`."""
    return decoded(sampled(prompt, **how)[0])[0].clamp(0, 1)


def sheet(rows: list[dict[str, Tensor]], labels: tuple[str, ...] = ()) -> Figure:
    """Pictures in rows, below titles that a row may share with the one above; with a label left of every row."""
    columns = len(rows[0])
    figure = Figure(figsize=(columns + 0.1, 1.07 * len(rows) + 0.15), dpi=DPI, layout="constrained")
    above: set[str] = set()
    for line, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for axes, (title, picture) in zip(line, row.items(), strict=True):
            axes.imshow(picture.cpu().numpy())
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(plot.GREY)
            axes.set_title("" if title in above else title, fontsize=9)
        above = set(row)
    for axes, label in zip(figure.axes[::columns], labels, strict=False):
        axes.set_ylabel(label, fontsize=9)
    return figure


def sampler() -> Figure:
    """The same prompt and noise at four gammas."""
    gammas = (0.0, 0.3, 0.6, 1.0)
    prompts = ("castle", "frog")
    return sheet([{f"gamma {gamma:g}": painted(prompt, gamma=gamma) for gamma in gammas} for prompt in prompts])


def ksampler() -> Figure:
    """The same prompt and noise in more and more steps."""
    counts = {"1 step": 1, "2 steps": 2, "4 steps": 4, "8 steps": 8}
    prompts = ("panda", "hamburger")
    return sheet([{name: painted(prompt, steps=steps) for name, steps in counts.items()} for prompt in prompts])


def lora_loader() -> Figure:
    """Four steps without the LoRA, above, and with it."""
    rows = [{prompt: painted(prompt, model=model) for prompt in EMOJI[1:6]} for model in (tiny()[0], distilled())]
    return sheet(rows, ("without", "with TCD LoRA"))


def tiny_loader() -> Figure:
    """What the tiny model draws for some prompts."""
    pictures = {prompt: painted(prompt) for prompt in EMOJI}
    return sheet([{prompt: pictures[prompt] for prompt in EMOJI[start::2]} for start in (0, 1)])


def sigmas(steps: int, denoise: float = 1.0, grid: str = "distillation") -> Tensor:
    """Noise levels [steps + 1] of TCD Scheduler."""
    return run("TCD_Scheduler", model=tiny()[0], steps=steps, denoise=denoise, grid=grid, times="")[0]


def times_of(levels: Tensor) -> Tensor:
    """The tiny model's timesteps of noise levels, without the clean one at the end."""
    return tiny()[0].get_model_object("model_sampling").timestep(levels[levels > 0])


def time_axis(axes: Axes) -> None:
    """Timesteps as sampling passes them."""
    axes.set(xlim=(1040, -40), xlabel="timestep: noise  \N{RIGHTWARDS ARROW}  picture")
    axes.spines[["top", "right"]].set_visible(False)


def scheduler() -> Figure:
    """Where the steps start, on both grids, on a line from noise to the picture."""
    lines = [(4, 1.0, "distillation"), (4, 1.0, "dense"), (8, 1.0, "distillation"), (8, 1.0, "dense")]
    lines.append((4, 0.5, "distillation"))
    figure = Figure(figsize=(4.3, 3), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for height, (steps, denoise, grid) in enumerate(reversed(lines)):
        times = times_of(sigmas(steps, denoise, grid)).tolist()
        colour = plot.DENOISE if grid == "distillation" else plot.DIFFUSE
        axes.plot([1000, 0], [height, height], color=plot.GREY, lw=1, zorder=0)
        axes.scatter(times, [height] * len(times), color=colour)
        for time in times:
            axes.annotate(f"{time:.0f}", (time, height), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    names = [f"{grid}, {n} steps" + (f",\ndenoise {part:g}" if part < 1 else "") for n, part, grid in reversed(lines)]
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(-0.4, len(lines) - 0.4)
    time_axis(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def gamma_schedule() -> Figure:
    """Every curve, with the values that eight steps get from it."""
    figure = Figure(figsize=(4.3, 3), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    schedule = module("adapt").schedule_of_model(tiny()[0])
    for colour, curve in zip(CURVE_COLOURS, module("gammas").CURVES, strict=True):
        (gammas,) = run("TCD_GammaSchedule", start=0.5, end=0.1, curve=curve, values="")
        for steps, line, marker in ((50, "-", ""), (8, "", "o")):
            levels = sigmas(steps)
            label = curve if line else None
            values = gammas.along(schedule, levels[:-1])
            axes.plot(times_of(levels), values, color=colour, ls=line, marker=marker, label=label)
    axes.set(ylabel="gamma", ylim=(0, 0.6))
    time_axis(axes)
    axes.grid(alpha=0.25)
    axes.legend(title="start 0.5, end 0.1", frameon=False, loc="lower left")
    return figure


def plotted(trajectory: Any, latent: dict[str, Tensor]) -> Tensor:
    """What TCD View Trajectory shows."""
    return run("TCD_ViewTrajectory", trajectory=trajectory, latent=latent, item=0, save=False, vae=tiny()[2])[0][0]


def view_trajectory() -> Tensor:
    """Four steps of TCD."""
    latent, _, trajectory = sampled("sunflower")
    return plotted(trajectory, latent)


def record_trajectory() -> Tensor:
    """Eight steps of a stock sampler, on the model without the LoRA."""
    model, trajectory = run("TCD_RecordTrajectory", model=tiny()[0])
    (levels,) = run("BasicScheduler", model=model, scheduler="normal", steps=8, denoise=1.0)
    (noise,) = run("RandomNoise", noise_seed=SEED)
    (guider,) = run("BasicGuider", model=model, conditioning=text("rocket"))
    (stock,) = run("KSamplerSelect", sampler_name="euler_ancestral")
    parts = {"noise": noise, "guider": guider, "sampler": stock, "sigmas": levels, "latent_image": empty()}
    return plotted(trajectory, run("SamplerCustomAdvanced", **parts)[0])


def compare() -> Tensor:
    """TCD and LCM with their LoRAs, and a stock sampler with guidance on the model that those were distilled from."""
    models = {"model": distilled(), "lcm_model": distilled(LCM), "teacher": tiny()[0], "cfg": 4.0}
    pictures = {"vae": tiny()[2], "latent": empty()}
    prompts = {"positive": text("hamburger"), "negative": text("")}
    rows = {"methods": "tcd, lcm, euler", "steps": "2, 4, 8", "gammas": "0, 0.3", "order": "1"}
    return run("TCD_Compare", seed=SEED, equal_evaluations=False, **models, **pictures, **prompts, **rows)[0][0]


PICTURES = [
    sampler,
    scheduler,
    gamma_schedule,
    ksampler,
    lora_loader,
    record_trajectory,
    view_trajectory,
    compare,
    tiny_loader,
]


def save(name: str, picture: Figure | Tensor) -> None:
    """Write one picture below web/docs/images."""
    pixels = torch.from_numpy(plot.to_array(picture)) if isinstance(picture, Figure) else picture
    sheets.tile(pixels).save(FOLDER / f"{name}.webp", quality=92, method=6)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for make in PICTURES:
        save(make.__name__, make())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
