"""Rerun both papers on the tiny model, and write what came of it.

    python -m demo.reproduce                        # all of it into docs/results.md: hours on two cores
    python -m demo.reproduce --quick                # on small budgets into output/reproduce: shows that it runs
    python -m demo.reproduce --only table1 gamma    # some of it; the other sections stay as they were

It goes on where it was stopped: students, pictures and numbers that are there are used again.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from demo import dataset
from training import host
from training.data.cache import key
from training.save import replace as put

from . import page
from .lab import Lab
from .scale import SCALES
from .trainings import ROOT, TrainingError

INTRODUCTION = """# Both papers, rerun in small

Made by `python3 dev.py reproduce{flags}`: every table and claim of *Trajectory Consistency Distillation* (arXiv
2402.19159) and of the second paper, on direct consistency models, rerun on the embedded tiny model
([demo/](../demo/README.md)) with this repository's trainer, samplers and measures. {budget}

A verdict is computed, not judged: a comparison *agrees* where it holds for each of the {seeds} seeds, which share
captions and noise; it *does not* where the opposite holds for each, or where one part of a claim of several does not;
it is *inconclusive* where the seeds differ. A model of 6.7 million weights that draws emoji is no SDXL: where it does
not agree, the paper may still be right about large models.

* **Frechet distance**: between the 64 features of `demo/features.safetensors` of the samples and of all {real:,} real
  pictures, unless others are named.
* **Captions found**: the share of samples that agree with their own caption more than with any other of all captions,
  by the same extractor's words: the stand-in for ImageReward and PickScore.
* **Complexity**: the share of a picture's spectral energy at periods below 16 pixels, two cells of the latent
  (`tcd.metrics.high_frequency_energy`): the stand-in for IC9600. **Compressed size**: bytes a pixel, losslessly. It
  counts faint noise on the white background as much as detail, so that real pictures have least of it."""
LORAS = ROOT / "demo" / "loras"
SHIPPED = {"tcd": "tcd_tiny_lora", "lcm": "lcm_tiny_lora", "splus": "tcd_splus_tiny_lora"}  # student -> file
BUDGETS = {
    "full": "Everything together takes some four hours on two cores.",
    "quick": "**This is the quick run: budgets are so small that its numbers say nothing of either paper.**",
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    from .experiments import EXPERIMENTS

    parser = argparse.ArgumentParser(
        "python -m demo.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--quick", action="store_true", help="small budgets, and a page of its own")
    parser.add_argument("--ship", action="store_true", help=f"then copy {', '.join(SHIPPED)} into demo/loras")
    parser.add_argument("--data", type=Path, default=dataset.FOLDER, help="the pictures (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.ship and options.quick:
        parser.error("--ship is for students of the full budget: leave --quick out")
    return options


def lab_of(quick: bool, data: Path) -> Lab:
    """The lab of a full or quick run, with its folders; other pictures than the emoji have some of their own."""
    own = data.resolve() == dataset.FOLDER.resolve()
    name = "-".join(["reproduce", *(["quick"] if quick else []), *([] if own else [key(str(data.resolve()))[:8]])])
    folder = ROOT / "docs" if own and not quick else ROOT / "output" / name
    return Lab(SCALES["quick" if quick else "full"], ROOT / "demo" / "runs" / name, data, folder / "results.md")


def introduction(lab: Lab, quick: bool, missing: Sequence[str]) -> str:
    """What the page is, how it was made, and which experiments it has not."""
    real = len(lab.bench().real.paths)
    budget = BUDGETS["quick" if quick else "full"]
    flags = " --quick" if quick else ""
    text = INTRODUCTION.format(flags=flags, budget=budget, seeds=len(lab.scale.seeds), real=real)
    return f"{text}\n\nNot here yet: `--only {' '.join(missing)}`." if missing else text


def reproduce(lab: Lab, names: Sequence[str], quick: bool) -> Path:
    """Distil what the experiments need, run them, write the page; returns its path."""
    from .experiments import EXPERIMENTS

    lab.distil(list(dict.fromkeys(student for name in names for student in EXPERIMENTS[name].STUDENTS)))
    sections = page.kept(lab.sections)
    for name in names:
        began = time.monotonic()
        sections[name] = EXPERIMENTS[name].run(lab)
        page.keep(sections, lab.sections)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    missing = [name for name in EXPERIMENTS if name not in sections]
    page.write(
        lab.page, introduction(lab, quick, missing), [sections[name] for name in EXPERIMENTS if name in sections]
    )
    return lab.page


def have_pictures(data: Path) -> None:
    """Fetch the emoji where they belong; raises ValueError for another folder that has no pictures."""
    if any(data.rglob("*.png")):
        return
    if data.resolve() != dataset.FOLDER.resolve():
        raise ValueError(f"--data must be a folder with PNG pictures below it, got {data}")
    print(f"no pictures in {data}: fetching them", flush=True)
    dataset.make(data)


def ship(lab: Lab) -> None:
    """Put the students that come with the pack, with their logs, where nodes and workflows find them."""
    lab.distil(list(SHIPPED))
    for name, shipped in SHIPPED.items():
        lora = lab.training(name).lora
        for file in (lora, lora.with_suffix(".jsonl")):
            put(LORAS / f"{shipped}{file.suffix}", partial(shutil.copyfile, file))


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        host.start()
        from .experiments import EXPERIMENTS

        have_pictures(options.data)
        lab = lab_of(options.quick, options.data)
        path = reproduce(lab, options.only or list(EXPERIMENTS), options.quick)
        if options.ship:
            ship(lab)
    except (TrainingError, ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: run it again to go on", file=sys.stderr)
        return 130
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
