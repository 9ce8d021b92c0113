"""What all experiments share: the tiny model, its students, and pictures of both, sampled and measured once.

Sampling is `training.evaluate`'s: a row is a way to sample, its pictures are files that are used again. What was
measured of them is kept beside them, under a key of the files that it was measured on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from demo import features
from tcd.metrics import high_frequency_energy
from training import host
from training.evaluate import METRICS, EvaluateOptions
from training.evaluate.loras import Loaded, LoraFile, loaded, lora_file
from training.evaluate.metrics import Subject, Tools, mean
from training.evaluate.pictures import Folder, Pictures
from training.evaluate.prompts import Prompt, Scenes, prompts_of, texts_of
from training.evaluate.report import mean_and_spread
from training.evaluate.rows import Row
from training.save import replace as put

from .memory import content, remembered
from .recipes import W, recipes
from .scale import Scale
from .trainings import CHECKPOINT, Training, distil

BATCH = 64
DETAIL = 1 / 16  # cycles a pixel: a period of two cells of the latent, the finest that the diffusion model decides
TEACHER = Row("ddim", 50, W)  # what stands for the teacher at its best


SHARES = ("retrieval", "complexity")  # which are told in percent
NAMES = {
    "frechet": "Frechet distance (lower is better)",
    "retrieval": "captions found (higher is better)",
    "complexity": "complexity (energy of detail)",
    "size": "compressed size, bytes a pixel",
}


@dataclass(frozen=True)
class Measured:
    """A row's numbers: evaluations of the network for a picture, and by measure one value for each seed."""

    evaluations: float
    values: dict[str, list[float]]

    def mean(self, measure: str) -> float:
        return mean_and_spread(self.values[measure])[0]

    def spread(self, measure: str) -> float:
        return mean_and_spread(self.values[measure])[1] or 0.0

    def cell(self, measure: str) -> str:
        """For a table: mean and standard deviation over the seeds."""
        scale, digits, sign = (100, 1, "%") if measure in SHARES else (1, 3, "")
        return f"{scale * self.mean(measure):.{digits}f} +- {scale * self.spread(measure):.{digits}f}{sign}"


@dataclass(frozen=True)
class Base:
    """A model to sample: the tiny one, or one made of it; and the pictures that it should be like."""

    name: str
    checkpoint: Path = CHECKPOINT
    loras: tuple[Path, ...] = ()  # that are merged into it
    real: str = ""  # folder of pictures; "" is the data of the tiny model
    captions: str = ""  # kohya folder of the captions to sample; "" is the data of the tiny model
    precision: str = "bf16"  # as the students were trained in; measures of pictures are those of float32 ("no")


TINY = Base("tiny")
SINGLE = replace(TINY, name="tiny-single", precision="no")  # bfloat16 rounds by as much as short steps err


@dataclass(frozen=True)
class Bench:
    """One base, ready to be sampled."""

    base: Base
    opts: EvaluateOptions
    models: host.Models
    scenes: Scenes
    tools: Tools
    texts: list[str]
    seeds: list[list[Prompt]]

    @cached_property
    def real(self) -> Pictures:
        """The pictures that the base should be like."""
        found = sorted(Path(self.opts.real_data).rglob("*.png"))
        return Pictures(tuple(found), self.opts.size, BATCH)

    @cached_property
    def known(self) -> list[str]:
        """All captions, sampled or not."""
        return texts_of(replace(self.opts, max_prompts=0))

    @contextmanager
    def parts(self, lora: LoraFile | None) -> Iterator[Loaded]:
        """Teacher and student, with the LoRA on the network."""
        with loaded(self.models, self.opts.model, lora) as parts:
            yield parts

    def pictures(self, row: Row, prompts: Sequence[Prompt]) -> Pictures:
        """The row's pictures, sampled where they are missing."""
        folder = Folder(self.opts, row)
        if folder.missing(prompts):
            with self.parts(row.lora) as parts, torch.no_grad():
                folder.make(parts, self.scenes, prompts)
        return folder.pictures(prompts)

    def measure(self, row: Row, among: Pictures | None = None) -> Measured:
        """All measures of a row for each seed; or its distance alone, to other pictures than the real ones."""
        self.pictures(row, [prompt for prompts in self.seeds for prompt in prompts])
        folder = Folder(self.opts, row)
        parts = [folder.pictures(prompts) for prompts in self.seeds]
        measures = ["frechet"] if among else list(MEASURES)
        return self.measured(row.name, parts, among or self.real, folder.evaluations(self.seeds[0][0]), measures)

    def measure_real(self) -> Measured:
        """The same of a real picture for each caption, another one for each seed."""
        by_caption = {text: list[Path]() for text in self.texts}
        for path in self.real.paths:
            caption = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
            by_caption.get(caption, []).append(path)
        chosen = [[found[i % len(found)] for found in by_caption.values()] for i in range(len(self.seeds))]
        parts = [Pictures(tuple(paths), self.opts.size, BATCH) for paths in chosen]
        return self.measured("real", parts, self.real, 0, list(MEASURES))

    def measured(
        self, name: str, parts: list[Pictures], among: Pictures, evaluations: float, measures: Sequence[str]
    ) -> Measured:
        """The measures of the pictures of each seed."""
        each = [self.remembered(name, Subject(self.tools, part, self.texts, among), measures) for part in parts]
        return Measured(evaluations, {measure: [values[measure] for values in each] for measure in measures})

    def remembered(self, name: str, subject: Subject, measures: Sequence[str]) -> dict[str, float]:
        """What is measured of one seed's pictures, or was once."""
        assert subject.reference is not None
        parts = [[content(path) for path in some.paths] for some in (subject.pictures, subject.reference)]
        return remembered(
            Path(self.opts.output_dir, "measured"),
            name,
            (parts, self.known, content(features.WEIGHTS), sorted(measures)),
            lambda: {measure: MEASURES[measure](self, subject) for measure in measures},
        )


def retrieval(bench: Bench, subject: Subject) -> float:
    """The share of pictures that agree more with their own caption than with any other of the data."""
    return features.retrieval(subject.tools.features(subject.pictures), subject.captions, bench.known)


def complexity(bench: Bench, subject: Subject) -> float:
    """The share of the spectral energy of detail that is finer than two cells of the latent."""
    return mean(partial(high_frequency_energy, cutoff=DETAIL))(subject)


# What is measured of the pictures of a row and seed.
MEASURES: dict[str, Callable[[Bench, Subject], float]] = {
    "frechet": lambda bench, subject: METRICS["frechet"](subject),
    "retrieval": retrieval,
    "complexity": complexity,
    "size": lambda bench, subject: METRICS["compressed_size"](subject),
}


@dataclass
class Lab:
    """Students and benches of one reproduction."""

    scale: Scale
    folder: Path
    data: Path
    page: Path
    benches: dict[Base, Bench] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        """Where the pictures of the page go."""
        return self.page.parent / "images"

    @property
    def sections(self) -> Path:
        """The page's sections and claims as JSON, beside it: what a run of some experiments leaves as it was."""
        return self.page.with_suffix(".json")

    def training(self, name: str) -> Training:
        return Training(name, recipes(self.scale)[name], self.folder / "loras", self.data)

    def distil(self, names: Sequence[str]) -> None:
        """Train the students that are missing."""
        distil([self.training(name) for name in names])

    def student(self, name: str, alias: str = "") -> LoraFile:
        """A student's LoRA; raises ValueError where it was not trained."""
        return lora_file(f"{alias or name}={self.training(name).lora}")

    def bench(self, base: Base = TINY) -> Bench:
        if base not in self.benches:
            self.benches[base] = self.made(base)
        return self.benches[base]

    def made(self, base: Base) -> Bench:
        opts = EvaluateOptions(
            pretrained_model_name_or_path=str(base.checkpoint),
            checkpoint_loader="demo.tiny:load",
            base_weights=tuple(map(str, base.loras)),
            train_data_dir=base.captions or str(self.data),
            real_data=base.real or str(self.data),
            resolution="128",
            mixed_precision=base.precision,
            seeds=self.scale.seeds,
            max_prompts=self.scale.captions,
            batch_size=BATCH,
            features="demo.features:describe",
            output_dir=str(self.folder / "pictures" / base.name),
        )
        texts = texts_of(opts)
        models = host.load_teacher(opts.model)
        with torch.no_grad():
            scenes = Scenes(models, texts, opts)
        seeds = [prompts_of(texts, seed, i * len(texts)) for i, seed in enumerate(opts.seeds)]
        return Bench(base, opts, host.place(host.release(models)), scenes, Tools(opts), texts, seeds)

    def sheet(self, name: str, rows: dict[str, Row], base: Base = TINY, count: int = 8) -> str:
        """A contact sheet of some captions, evenly spread, by row; returns its Markdown."""
        from demo import sheets

        bench = self.bench(base)
        chosen = [bench.seeds[0][i] for i in evenly(len(bench.texts), count)]
        made = {label: torch.cat(list(bench.pictures(row, chosen))) for label, row in rows.items()}
        path = self.images / f"results_{name}.png"
        image = sheets.rows(made, [prompt.text for prompt in chosen])
        put(path, lambda scratch: image.save(scratch, "PNG", optimize=True))
        return f"![{name.replace('_', ' ')}](images/{path.name})"


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices spread evenly over range(count): no picking.

    >>> evenly(1599, 3), evenly(2, 8)
    ([0, 799, 1598], [0, 1])
    """
    return torch.linspace(0, count - 1, min(wanted, count)).round().int().tolist()


def student_row(lora: LoraFile, steps: int, gamma: float | None = None) -> Row:
    """Sampling with a student: TCD with the gamma that its file asks for, or another."""
    method = "tcd" if lora.gamma < 1 else "lcm"
    return Row(method, steps, 0.0, lora.gamma if gamma is None else gamma, lora.tcf, lora)
