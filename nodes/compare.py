"""TCD_Compare: one prompt and one noise, sampled in many ways, on one labelled sheet.

A row of the sheet is a way to sample, see METHODS. First all cells are planned and checked, then they are sampled by
ComfyUI's own SamplerCustom, counted and timed, then decoded and drawn.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import comfy.samplers
import latent_preview
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io, ui
from comfy_extras.nodes_custom_sampler import SamplerCustom
from torch import Tensor

from .. import tcd
from . import adapt, inputs, sheet
from .gammas import values_of
from .sampler import predictor
from .sampling import sampler_of, sigmas_for
from .schema import schema

MOST_STEPS, MOST_PICTURES = 1000, 200
KEY = "tcd_compare"  # of the wrappers in transformer_options


@dataclass(frozen=True, eq=False)
class Source:
    """What is asked for predictions: a MODEL, its prompts, and the guidance that it needs."""

    model: Any
    positive: list
    negative: list
    cfg: float = 1.0

    @property
    def evaluations(self) -> int:
        """Of the network, for one prediction."""
        return 1 if self.cfg == 1 else 2


@dataclass(frozen=True, eq=False)
class Setup:
    """What the rows are made from: the distilled model, what the plain solvers run on, gammas and order for TCD."""

    student: Source
    teacher: Source
    gammas: str  # as they were written
    order: str


@dataclass(frozen=True, eq=False)
class Row:
    """A way to sample, of which only the number of steps is open."""

    name: str
    notes: tuple[str, ...]
    source: Source
    sampler: comfy.samplers.KSAMPLER
    levels: Callable[[int], Tensor]  # noise levels [n + 1] of n steps; ValueError where there are none
    predictions: Callable[[int], int]  # that n steps need
    gamma: float | None = None

    @property
    def label(self) -> tuple[str, ...]:
        """The name, and lines of what else matters."""
        return (self.name, *([] if self.gamma is None else [f"gamma {self.gamma:g}"]), *self.notes)

    def evaluations(self, steps: int) -> int:
        """Of the network, for so many steps."""
        return self.predictions(steps) * self.source.evaluations

    def affordable(self, evaluations: int) -> int:
        """The most steps for so many evaluations; 0 where not even one is."""
        return max((n for n in range(1, evaluations + 1) if self.evaluations(n) <= evaluations), default=0)


def grid_levels(model, steps: int) -> Tensor:
    """The distillation grid's noise levels. Raises ValueError for more steps than that has."""
    most = adapt.schedule_of_model(model).steps // inputs.GRIDS["distillation"]
    if steps > most:
        raise ValueError(f"steps must be at most {most} for tcd and lcm, whose grid has no more times; got {steps}")
    return sigmas_for(model, steps, 1.0, "distillation")


def host_levels(model, scheduler: str, steps: int) -> Tensor:
    """Noise levels of ComfyUI's scheduler. Raises ValueError where it does not give that many different ones."""
    levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps).cpu()
    different = len(levels.unique()) - 1
    if (different, len(levels) - 1) != (steps, steps):
        gives = f"ComfyUI's scheduler {scheduler}, which gives {different}: take other steps, or another method"
        raise ValueError(f"steps cannot be {steps} with {gives}")
    return levels


def distilled(setup: Setup, name: str, gamma: float, order: str) -> Row:
    """Strategic stochastic sampling on the student. Raises ValueError for models that TCD, or that order, cannot do."""
    model = setup.student.model
    predictor(None, {"model_options": model.model_options}, adapt.schedule_of_model(model), order)  # for what it raises
    notes = () if order == "1" else (f"order {order}",)
    per_step = 2 if order == "2" else 1
    sampler = sampler_of(gamma, order, "x0")
    return Row(name, notes, setup.student, sampler, partial(grid_levels, model), lambda n: per_step * n, gamma)


def solver(
    name: str, sampler: str, scheduler: str, predictions: Callable[[int], int] = lambda n: n, **options: float
) -> Callable[[Setup], list[Row]]:
    """The row of a sampler of ComfyUI's, on the teacher, or on the student where there is none."""

    def rows(setup: Setup) -> list[Row]:
        source = setup.teacher
        own = ["teacher"] if source.model is not setup.student.model else []
        guidance = [f"cfg {source.cfg:g}"] if source.cfg != 1 else []
        # `ddim` is not the name of a function: only `sampler_object` knows it.
        made = comfy.samplers.ksampler(sampler, options) if options else comfy.samplers.sampler_object(sampler)
        levels = partial(host_levels, source.model, scheduler)
        return [Row(name, (*own, *guidance), source, made, levels, predictions)]

    return rows


# Name -> the rows of the sheet. Multistep consistency sampling, LCM's, is TCD with gamma 1 (Algorithm 3). ComfyUI's
# ddim is euler: what makes it DDIM is ddim_uniform, the times of its authors and of diffusers, below pure noise. The
# others begin at pure noise, in even steps, and waste none at the lowest noise level, which counts with few steps.
# DPM-Solver++(2S) is ComfyUI's ancestral sampler without noise; its last step needs one prediction alone.
METHODS: dict[str, Callable[[Setup], list[Row]]] = {
    "tcd": lambda setup: [distilled(setup, "TCD", gamma, setup.order) for gamma in gammas_of(setup.gammas)],
    "lcm": lambda setup: [distilled(setup, "LCM", 1.0, "1")],
    "ddim": solver("DDIM", "ddim", "ddim_uniform"),
    "euler": solver("Euler", "euler", "simple"),
    "dpmpp_2s": solver("DPM++ 2S", "dpmpp_2s_ancestral", "simple", lambda n: 2 * n - 1, eta=0.0),
    "dpmpp_2m": solver("DPM++ 2M", "dpmpp_2m", "simple"),
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of the sheet: a row in so many steps; `why` says what is against it, if anything."""

    row: Row
    steps: int
    levels: Tensor
    why: str = ""

    @property
    def evaluations(self) -> int:
        """As they are expected."""
        return 0 if self.why else self.row.evaluations(self.steps)


def cell_within(row: Row, evaluations: int) -> Cell:
    """The cell of the most steps for so many evaluations, or an empty one that says why."""
    steps = row.affordable(evaluations)
    try:
        if steps == 0:
            raise ValueError(f"a step takes {row.evaluations(1)} evaluations")
        return Cell(row, steps, row.levels(steps))
    except ValueError as error:
        return Cell(row, steps, torch.zeros(0), str(error))


def words(text: str) -> list[str]:
    """What stands between commas, spaces and line breaks, each once."""
    return list(dict.fromkeys(re.findall(r"[^\s,;]+", text)))


def columns_of(text: str) -> list[int]:
    """The numbers of "2, 4, 8". Raises ValueError for none, and for one outside of 1 to MOST_STEPS."""
    found = words(text)
    for word in found or [""]:
        if not re.fullmatch(r"\d{1,9}", word) or not 1 <= int(word) <= MOST_STEPS:
            raise ValueError(f"steps must be whole numbers from 1 to {MOST_STEPS}, such as 2, 4, 8; got {word!r}")
    return list(dict.fromkeys(map(int, found)))


def gammas_of(text: str) -> tuple[float, ...]:
    """The numbers of "0, 0.3, 1", each once. Raises ValueError for none, and for one outside of [0, 1]."""
    try:
        values = tuple(dict.fromkeys(values_of(text)))
    except ValueError as error:
        raise ValueError(f"gammas: {error}") from None
    if not values:
        raise ValueError(f"gammas must be numbers in [0, 1], such as 0, 0.3, 1; got {text!r}")
    return values


def rows_of(text: str, setup: Setup) -> list[Row]:
    """The rows of "tcd, euler". Raises ValueError for no method, and for an unknown one."""
    builders = [tcd.choose(METHODS, "methods", name.lower()) for name in words(text) or [""]]
    return [row for builder in dict.fromkeys(builders) for row in builder(setup)]


def planned(rows: list[Row], columns: list[int], equal: bool) -> list[list[Cell]]:
    """All cells, row by row. Raises ValueError for steps that a row cannot do.

    At equal evaluations a cell that cannot be is empty instead, unless all are.
    """
    if not equal:
        return [[Cell(row, steps, row.levels(steps)) for steps in columns] for row in rows]
    cells = [[cell_within(row, budget) for budget in columns] for row in rows]
    if all(cell.why for line in cells for cell in line):
        raise ValueError(f"no method can do with {columns[-1]} evaluations: {cells[-1][-1].why}")
    return cells


def check_size(rows: int, columns: int, batch: int) -> None:
    """Raises ValueError for more pictures than MOST_PICTURES."""
    if rows * columns * batch > MOST_PICTURES:
        what = f"{rows} rows x {columns} columns x {batch} of the batch = {rows * columns * batch}"
        raise ValueError(f"the sheet must have at most {MOST_PICTURES} pictures, got {what}")


def check_channels(model, teacher, vae, samples: Tensor) -> None:
    """Raises ValueError unless all are of one latent format. An empty latent is of any."""
    if samples.is_nested:
        raise ValueError("latent must hold pictures alone, got several parts such as picture and sound")
    wanted = model.get_model_object("latent_format").latent_channels
    found = {"vae": vae.latent_channels}
    if teacher is not None:
        found["teacher"] = teacher.get_model_object("latent_format").latent_channels
    if bool(samples.any()):
        found["latent"] = samples.shape[1]
    for what, channels in found.items():
        if channels != wanted:
            raise ValueError(f"{what} must have the model's {wanted} latent channels, got {channels}")


def setup_of(model, teacher, positive, negative, cfg: float, gammas: str, order: str) -> Setup:
    """Student and teacher. Raises ValueError for guidance without a negative prompt."""
    student = Source(model, positive, positive)
    if teacher is None:
        return Setup(student, student, gammas, order)
    if negative is None and cfg != 1:
        raise ValueError(f"the teacher's cfg is {cfg:g}: connect a negative prompt, or set cfg to 1")
    return Setup(student, Source(teacher, positive, negative or positive, cfg), gammas, order)


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

    def __deepcopy__(self, memo: dict) -> "Meter":
        """Itself: ComfyUI before 0.14 copies a model's options deeply, also what is in them."""
        return self

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


def count(number: str, what: str) -> str:
    """
    >>> count("1", "step"), count("4", "step")
    ('1 step', '4 steps')
    """
    return f"{number} {what}" if number == "1" else f"{number} {what}s"


def tile(result: Result, pictures: Tensor | None, item: int, equal: bool) -> sheet.Tile:
    """A picture with what its column does not say of it."""
    if pictures is None:
        return sheet.Tile()
    steps, evaluations, seconds = result.words()
    own = [count(steps, "step")] if equal else []
    return sheet.Tile(pictures[item], [*own, count(evaluations, "evaluation"), f"{seconds} s"])


def strips(results: list[Result], pictures: list[Tensor | None], batch: int, equal: bool) -> list[sheet.Strip]:
    """A method's row of the sheet, once for each picture of the batch."""
    pairs = list(zip(results, pictures, strict=True))
    label = results[0].cell.row.label
    return [
        sheet.Strip(
            (*label, *([f"picture {item + 1}"] if batch > 1 else [])), [tile(*pair, item, equal) for pair in pairs]
        )
        for item in range(batch)
    ]


def drawn(results: list[list[Result]], vae, columns: list[int], equal: bool) -> tuple[Tensor, Tensor]:
    """(the sheet [1, H, W, 3], its pictures [n, H, W, 3] row by row)."""
    pictures = [[decoded(vae, result.latent) for result in line] for line in results]
    batch = next(len(found) for line in pictures for found in line if found is not None)
    rows = [row for line, found in zip(results, pictures, strict=True) for row in strips(line, found, batch, equal)]
    headings = [count(str(column), "evaluation" if equal else "step") for column in columns]
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
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of all noise: every cell starts from the same.",
                ),
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
    ):
        check_channels(model, teacher, vae, latent["samples"])
        setup = setup_of(model, teacher, positive, negative, cfg, gammas, order)
        rows, columns = rows_of(methods, setup), columns_of(steps)
        check_size(len(rows), len(columns), len(latent["samples"]))
        results = sample_all(planned(rows, columns, equal_evaluations), latent, seed)
        picture, pictures = drawn(results, vae, columns, equal_evaluations)
        return io.NodeOutput(picture, pictures, report(results), ui=ui.PreviewImage(picture, cls=cls))
