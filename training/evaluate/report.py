"""The table: Markdown to read, CSV and JSON to go on with. Each is replaced at once, and after every row."""

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..save import replace
from .metrics import METRICS
from .options import EvaluateOptions
from .rows import Row, teacher_row


@dataclass(frozen=True)
class Result:
    """A row's numbers: evaluations of the network for a picture, and by metric one value for each seed."""

    row: Row
    evaluations: float
    values: dict[str, list[float]]


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """(mean, standard deviation of a sample), the latter None for one value.

    >>> mean_and_spread([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def cell(values: list[float]) -> str:
    """Of the Markdown table.

    >>> cell([1.0, 3.0]), cell([0.123456]), cell([])
    ('2 +- 1.41', '0.1235', '-')
    """
    if not values:
        return "-"
    middle, spread = mean_and_spread(values)
    return f"{middle:.4g}" if spread is None else f"{middle:.4g} +- {spread:.3g}"


def markdown(opts: EvaluateOptions, results: Sequence[Result], pictures: int) -> str:
    """The table under what it is of."""
    metrics = {name: METRICS[name].better for name in opts.metrics}
    heading = [f"{name} ({better})" if better else name for name, better in metrics.items()]
    rows = [
        ["row", "evaluations", *heading],
        ["---", *["---:"] * (1 + len(heading))],
        *([r.row.label, f"{r.evaluations:g}", *(cell(r.values[name]) for name in metrics)] for r in results),
    ]
    reference = opts.real_data or "the teacher's"
    compared = f"; pictures are compared with {reference}" if any(METRICS[name].reference for name in metrics) else ""
    lines = [
        f"# {Path(opts.pretrained_model_name_or_path).name}",
        "",
        f"{pictures} pictures a row and seed ({', '.join(map(str, opts.seeds))}), of the same prompts and noise in all "
        f"rows. The teacher to compare with: {teacher_row(opts).label}{compared}. In brackets: which is better.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def as_csv(opts: EvaluateOptions, results: Sequence[Result], pictures: int) -> str:
    """A line for each row; the spread of one seed is empty."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    columns = [column for name in opts.metrics for column in (name, f"{name}_spread")]
    table.writerow(["row", "lora", "method", "steps", "gamma", "tcf", "w", "pictures", "evaluations", *columns])
    for result in results:
        row = result.row
        numbers = [mean_and_spread(values) if (values := result.values[name]) else ("", "") for name in opts.metrics]
        way = [row.name, row.lora.name if row.lora else "", row.method, row.steps, row.gamma, row.tcf, row.w]
        table.writerow([*way, pictures, result.evaluations, *(number for pair in numbers for number in pair)])
    return written.getvalue()


def as_json(opts: EvaluateOptions, results: Sequence[Result], pictures: int) -> str:
    """The options and every value."""
    rows = [
        {
            **vars(result.row),
            "row": result.row.name,
            "lora": str(result.row.lora.path) if result.row.lora else None,
            "pictures": pictures,
            "evaluations": result.evaluations,
            "metrics": {name: described(values) for name, values in result.values.items() if values},
        }
        for result in results
    ]
    return json.dumps({"options": vars(opts), "rows": rows}, indent=1) + "\n"


def described(values: list[float]) -> dict[str, object]:
    middle, spread = mean_and_spread(values)
    return {"mean": middle, "spread": spread, "values": values}


FORMATS: dict[str, Callable[[EvaluateOptions, Sequence[Result], int], str]] = {
    "results.md": markdown,
    "results.csv": as_csv,
    "results.json": as_json,
}


def write(opts: EvaluateOptions, results: Sequence[Result], pictures: int) -> None:
    """All files of the table; `pictures` is the number of pictures of a row and seed."""
    for name, text in FORMATS.items():
        made = text(opts, results, pictures).encode()
        replace(Path(opts.output_dir, name), lambda path, made=made: path.write_bytes(made))
