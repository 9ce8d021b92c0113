"""The evaluation: every row sampled and measured, then table and contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from .. import host
from ..host import Models
from ..save import replace as put
from ..save import writable
from ..watch import sheet
from . import metrics, pictures, report
from .loras import Loaded, loaded, lora_files
from .metrics import Metric, Subject, Tools
from .options import EvaluateOptions
from .pictures import Folder, Pictures
from .probes import Path as Trajectory
from .probes import Probe, paths_of
from .prompts import Prompt, Scenes, prompts_of, texts_of
from .rows import Row, rows_of, teacher_row

LETTERS = 20  # of a prompt below its picture


class Evaluation:
    """What all rows share. Everything that can be told without a model is checked here."""

    def __init__(self, opts: EvaluateOptions):
        self.opts = opts
        self.metrics = metrics.check(opts)
        self.compared = any(metric.reference for metric in self.metrics.values())
        self.files = lora_files(opts.network_weights)
        self.rows = rows_of(opts, self.files)
        self.teacher = teacher_row(opts)
        if self.compared and not opts.real_data and self.teacher not in self.rows:
            self.rows.insert(0, self.teacher)  # whose pictures are what others are compared with
        self.rows.sort(key=lambda row: row != self.teacher)
        self.texts = texts_of(opts)
        if self.compared and len(self.texts) < 2:
            raise ValueError("a distance between pictures needs two prompts at least, got 1")
        self.real = pictures.real(opts) if opts.real_data else None
        self.seeds = [prompts_of(self.texts, seed, i * len(self.texts)) for i, seed in enumerate(opts.seeds)]
        self.tools = Tools(opts)
        writable(Path(opts.output_dir))

    def reference(self, prompts: Sequence[Prompt]) -> Pictures | None:
        """The pictures to compare with."""
        return self.real or (Folder(self.opts, self.teacher).pictures(prompts) if self.compared else None)

    def try_metrics(self) -> None:
        """Measure two plain pictures by all that looks at pictures: what is missing shows before hours of sampling."""
        with TemporaryDirectory() as folder:
            paths = tuple(Path(folder, f"{shade}.png") for shade in ("black", "white"))
            for path in paths:
                Image.new("RGB", self.opts.size, path.stem).save(path)
            plain = Pictures(paths, self.opts.size)
            subject = Subject(self.tools, plain, [path.stem for path in paths], plain)
            for name, metric in self.metrics.items():
                if not metric.probe:
                    self.measure(subject, name, metric)

    def check_model(self, models: Models) -> None:
        """Raises ValueError where a LoRA does not fit the model, or the schedule has not so many steps."""
        for file in self.files:
            with loaded(models, self.opts.model, file):
                pass
        for row in self.rows:
            row.check(models.sched)

    def measure(self, subject: Subject, name: str, metric: Metric) -> float:
        """Raises ValueError that names the metric for whatever its libraries and weights raise."""
        try:
            return metric(subject)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"metric {name}: {error}") from error

    def run(self) -> Path:
        """Sample and measure; returns the path of the table."""
        self.try_metrics()
        models = host.load_teacher(self.opts.model)
        self.check_model(models)
        with torch.no_grad():
            scenes = Scenes(models, self.texts, self.opts)
            results = self.sample(host.place(host.release(models)), scenes)
        path = Path(self.opts.output_dir)
        put(path / "sheet.png", lambda scratch: self.sheet().save(scratch, "PNG"))
        report.write(self.opts, results, len(self.texts))
        return path / "results.md"

    def sample(self, models: Models, scenes: Scenes) -> list[report.Result]:
        """The results of all rows."""
        results, paths = [], self.paths(models, scenes)
        for row in self.rows:
            with loaded(models, self.opts.model, row.lora) as parts:
                results.append(self.result(row, parts, scenes, paths))
            report.write(self.opts, results, len(self.texts))
        return results

    def paths(self, models: Models, scenes: Scenes) -> list[list[Trajectory]]:
        """The teacher's, for each seed, if any metric looks into students and there are any."""
        wanted = any(metric.probe for metric in self.metrics.values()) and any(row.student for row in self.rows)
        with loaded(models, self.opts.model, None) as parts:
            return [paths_of(parts, scenes, prompts, self.opts) if wanted else [] for prompts in self.seeds]

    def result(self, row: Row, parts: Loaded, scenes: Scenes, paths: list[list[Trajectory]]) -> report.Result:
        """Sample and measure one row."""
        folder, values = Folder(self.opts, row), {name: list[float]() for name in self.metrics}
        folder.make(parts, scenes, [prompt for prompts in self.seeds for prompt in prompts])
        for prompts, own in zip(self.seeds, paths, strict=True):
            probe = Probe(row, parts, scenes, own) if row.student else None
            subject = Subject(self.tools, folder.pictures(prompts), self.texts, self.reference(prompts), probe)
            for name, metric in self.metrics.items():
                if metric.applies(subject):
                    values[name].append(self.measure(subject, name, metric))
        return report.Result(row, folder.evaluations(self.seeds[0][0]), values)

    def sheet(self) -> Image.Image:
        """Every row's pictures of the first few prompts."""
        prompts = self.seeds[0][: self.opts.sheet_prompts]
        words = [f"{prompt.index + 1}. {prompt.text}"[:LETTERS] for prompt in prompts]
        made = [(row.label, Folder(self.opts, row).pictures(prompts)) for row in self.rows]
        rows = [sheet.Row(label, dict(zip(words, torch.cat(list(found)), strict=True))) for label, found in made]
        return sheet.draw(Path(self.opts.pretrained_model_name_or_path).name, rows)


def evaluate(opts: EvaluateOptions) -> Path:
    """Sample every row and measure it; returns the path of the Markdown table.

    Raises ValueError for all that can be told beforehand, and for metrics whose library or weights are missing.
    """
    return Evaluation(opts).run()
