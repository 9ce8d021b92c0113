"""TCD_Compare: one prompt and one noise, sampled in many ways, on one labelled sheet.

A row of the sheet is a way to sample, see methods.py. First all cells are planned and checked, then they are sampled by
ComfyUI's own SamplerCustom, counted and timed, then decoded and drawn.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import latent_preview
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io, ui
from comfy_extras.nodes_custom_sampler import SamplerCustom
from torch import Tensor

from . import inputs, sheet
from .methods import METHODS, Cell, amount, columns_of, planned, rows_of, setup_of
from .schema import schema

MOST_PICTURES = 200
KEY = "tcd_compare"  # of the wrappers in transformer_options


def check_size(rows: int, columns: int, batch: int) -> None:
    """Raises ValueError for more pictures than MOST_PICTURES."""
    if rows * columns * batch > MOST_PICTURES:
        what = f"{rows} rows x {columns} columns x {batch} of the batch = {rows * columns * batch}"
        raise ValueError(f"the sheet must have at most {MOST_PICTURES} pictures, got {what}")


def check_channels(models: dict[str, Any], vae, samples: Tensor) -> None:
    """Raises ValueError unless all are of the first model's latent format. An empty latent is of any."""
    if samples.is_nested:
        raise ValueError("latent must hold pictures alone, got several parts such as picture and sound")
    there = {name: model for name, model in models.items() if model is not None}
    found = {name: model.get_model_object("latent_format").latent_channels for name, model in there.items()}
    wanted = found["model"]
    found["vae"] = vae.latent_channels
    if bool(samples.any()):
        found["latent"] = samples.shape[1]
    for what, channels in found.items():
        if channels != wanted:
            raise ValueError(f"{what} must have the model's {wanted} latent channels, got {channels}")


def settled(x: Tensor) -> float:
    """The time, when a device has done what leads to x: any copy from it waits for that."""
    x.flatten()[:1].cpu()
    return perf_counter()


class Meter:
    """Counts and times the present run of a comparison, and shows how far all of them have come."""

    def __init__(self, model, total: int):
        self.show, self.total = latent_preview.prepare_callback(model, total), total
        self.before = 0  # evaluations of the runs before this one
        self.batch, self.evaluations, self.seconds = 1, 0.0, 0.0

    def on(self, model):
        """A clone of the model that is watched."""
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self.count)
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self.time)
        return model

    def count(self, executor, x: Tensor, *rest, **named) -> Tensor:
        """Around the network: prompts that go through it as one batch count one each. Cancel stops after any."""
        output = executor(x, *rest, **named)
        self.evaluations += len(x) / self.batch
        throw_exception_if_processing_interrupted()
        return output

    def time(self, executor, guider, sigmas: Tensor, extra_args: dict, callback, noise: Tensor, *rest, **named):
        """Around the sampler, with the model loaded. Instead of SamplerCustom's progress, that of all runs is shown."""
        self.batch, self.evaluations = len(noise), 0.0
        start = settled(noise)
        sampled = executor(guider, sigmas, extra_args, self.progress, noise, *rest, **named)
        self.seconds = settled(sampled) - start
        return sampled

    def progress(self, i: int, x0: Tensor, x: Tensor, steps: int) -> None:
        """ComfyUI's callback of a step."""
        self.show(int(self.before + self.evaluations) - 1, x0, x, self.total)


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a cell: a latent, evaluations and seconds as they were measured; nothing of an empty cell."""

    cell: Cell
    latent: Tensor | None = None
    evaluations: float = 0.0
    seconds: float = 0.0

    def words(self) -> tuple[str, str, str]:
        """Steps, evaluations and seconds."""
        if self.latent is None:
            return ("-", "-", "-")
        return str(self.cell.steps), f"{round(self.evaluations, 2):g}", f"{self.seconds:.2f}"

    def line(self) -> tuple[str, ...]:
        """Of the report: method and gamma before those."""
        row = self.cell.row
        return " ".join((row.name, *row.notes)), "-" if row.gamma is None else f"{row.gamma:g}", *self.words()


def sampled(model, cell: Cell, latent: dict, seed: int) -> Tensor:
    """The latent that ComfyUI's SamplerCustom gives."""
    source, sampler = cell.row.source, cell.row.sampler
    prompts = (source.positive, source.negative)
    outputs: Any = SamplerCustom.execute(model, True, seed, source.cfg, *prompts, sampler, cell.levels, latent).result
    return outputs[0]["samples"]


def warming(cells: list[Cell]) -> list[Cell]:
    """One step of every source, the first one's last. What a first run alone takes is then in no cell's time."""
    first = {cell.row.source: cell for cell in reversed(cells)}
    return [Cell(cell.row, 1, cell.levels[[0, -1]]) for cell in first.values()]


def sample_all(cells: list[list[Cell]], latent: dict, seed: int) -> list[list[Result]]:
    """Samples every cell that can be, after a step of each source."""
    able = [cell for line in cells for cell in line if not cell.why]
    early = warming(able)
    meter = Meter(able[0].row.source.model, sum(cell.evaluations for cell in [*early, *able]))
    watched = {cell.row.source: meter.on(cell.row.source.model) for cell in early}

    def result(cell: Cell) -> Result:
        if cell.why:
            return Result(cell)
        out = sampled(watched[cell.row.source], cell, latent, seed)
        meter.before += cell.evaluations
        return Result(cell, out, meter.evaluations, meter.seconds)

    for cell in early:
        result(cell)
    return [[result(cell) for cell in line] for line in cells]


def decoded(vae, latent: Tensor | None) -> Tensor | None:
    """Pictures [B, H, W, 3]; of a video, its first."""
    throw_exception_if_processing_interrupted()
    if latent is None:
        return None
    images = vae.decode(latent)
    return images[:, 0] if images.ndim == 5 else images


def tile(result: Result, pictures: Tensor | None, item: int, equal: bool) -> sheet.Tile:
    """A picture with what its column does not say of it."""
    if pictures is None:
        return sheet.Tile()
    steps, evaluations, seconds = result.words()
    own = [amount(steps, "step")] if equal else []
    return sheet.Tile(pictures[item], [*own, amount(evaluations, "evaluation"), f"{seconds} s"])


def strips(results: list[Result], pictures: list[Tensor | None], batch: int, equal: bool) -> list[sheet.Strip]:
    """A method's row of the sheet, once for each picture of the batch."""
    pairs = list(zip(results, pictures, strict=True))
    label = results[0].cell.row.label
    numbers = [(f"picture {item + 1}",) if batch > 1 else () for item in range(batch)]
    return [
        sheet.Strip((*label, *number), [tile(*pair, item, equal) for pair in pairs])
        for item, number in enumerate(numbers)
    ]


def drawn(results: list[list[Result]], vae, columns: list[int], equal: bool) -> tuple[Tensor, Tensor]:
    """(the sheet [1, H, W, 3], its pictures [n, H, W, 3] row by row)."""
    pictures = [[decoded(vae, result.latent) for result in line] for line in results]
    batch = next(len(found) for line in pictures for found in line if found is not None)
    rows = [row for line, found in zip(results, pictures, strict=True) for row in strips(line, found, batch, equal)]
    headings = [amount(str(column), "evaluation" if equal else "step") for column in columns]
    every = [tile.picture for row in rows for tile in row.tiles if tile.picture is not None]
    return sheet.draw(headings, rows)[None], torch.stack(every)


def report(results: list[list[Result]]) -> str:
    """A table of text: a line for every cell, their total, and what is against those that are empty."""
    every = [result for line in results for result in line]
    evaluations, seconds = sum(result.evaluations for result in every), sum(result.seconds for result in every)
    table = [
        ("method", "gamma", "steps", "evaluations", "seconds"),
        *(result.line() for result in every),
        ("total", "", "", f"{evaluations:g}", f"{seconds:.2f}"),
    ]
    width = max(len(method) for method, *_ in table)
    lines = [f"{method:{width}}" + "".join(f"{word:>13}" for word in words) for method, *words in table]
    why = [f"{' '.join(result.cell.row.label)}: {result.cell.why}" for result in every if result.cell.why]
    return "\n".join([*lines, *dict.fromkeys(why)])


class Compare(io.ComfyNode):
    """The papers' figures 4 and 5 for one's own model and prompt."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_Compare",
            display_name="TCD Compare",
            search_aliases=["contact sheet", "xy plot", "grid", "samplers", "gamma sweep", "benchmark"],
            description="The same prompt and noise sampled by several methods, in several numbers of steps and gammas, "
            "on one labelled sheet, with the network evaluations and seconds of each.",
            inputs=[
                io.Model.Input("model", tooltip="The model with its TCD LoRA. It is sampled at cfg 1."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                io.Conditioning.Input("positive", tooltip="What the pictures should show."),
                io.Latent.Input("latent", tooltip="Size of the pictures. Every picture of a batch gets a row."),
                inputs.seed("Of all noise: every cell starts from the same."),
                io.String.Input(
                    "methods",
                    default="tcd, lcm, euler, dpmpp_2s",
                    tooltip=f"Rows of the sheet, from: {', '.join(METHODS)}. lcm is TCD with gamma 1; the others are "
                    "ComfyUI's own samplers.",
                ),
                io.String.Input("steps", default="2, 4, 8, 20", tooltip="Columns of the sheet."),
                io.String.Input(
                    "gammas", default="0, 0.3, 0.6", tooltip="For method tcd: a row for each, from 0 to 1."
                ),
                inputs.order(),
                io.Boolean.Input(
                    "equal_evaluations",
                    default=False,
                    tooltip="The columns are network evaluations instead of steps: a fair comparison. Methods that "
                    "take two for a step get half as many steps, and with cfg above 1 half of those.",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance of the teacher. Without a teacher it does nothing.",
                ),
                io.Model.Input(
                    "teacher",
                    optional=True,
                    tooltip="The model without the LoRA: ddim, euler and dpmpp then run on it, with cfg. Without it "
                    "they run on the distilled model, at cfg 1.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="The teacher's, for its cfg."),
                io.Model.Input(
                    "lcm_model",
                    optional=True,
                    tooltip="The model with an LCM LoRA: method lcm then runs on it, at cfg 1. Without it, on model.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet"),
                io.Image.Output(display_name="pictures"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        positive,
        latent,
        seed,
        methods,
        steps,
        gammas,
        order,
        equal_evaluations,
        cfg,
        teacher=None,
        negative=None,
        lcm_model=None,
    ):
        inputs.check_number("cfg", cfg, 0, 100)
        check_channels({"model": model, "lcm_model": lcm_model, "teacher": teacher}, vae, latent["samples"])
        setup = setup_of(model, lcm_model, teacher, positive, negative, cfg, gammas, order)
        rows, columns = rows_of(methods, setup), columns_of(steps)
        check_size(len(rows), len(columns), len(latent["samples"]))
        results = sample_all(planned(rows, columns, equal_evaluations), latent, seed)
        picture, pictures = drawn(results, vae, columns, equal_evaluations)
        return io.NodeOutput(picture, pictures, report(results), ui=ui.PreviewImage(picture, cls=cls))
