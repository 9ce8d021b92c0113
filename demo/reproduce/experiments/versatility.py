"""Section 5.3 of the first paper, "Versatility of TCD": the same LoRA on a tuned checkpoint and with a style LoRA."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps
from tqdm import tqdm

from training.evaluate.rows import Row

from ..claims import Claim, all_of, tally, verdict
from ..finetune import Tuning, tune
from ..lab import CHECKPOINT, NAMES, TEACHER, TINY, Base, Lab, Measured, student_row
from ..page import Section, table
from ..recipes import W

TITLE = "Section 5.3: versatility"
STUDENTS = ("tcd",)
STEPS = (2, 4, 8)  # of TCD, whose evaluations they are; a guided step of DDIM has two
UNCHANGED = 4  # steps of TCD on the tiny model as it is
TONES = 4  # of the paper, besides white

By = dict[int, Measured]  # by evaluations of the network


def blue(picture: Image.Image) -> Image.Image:
    """Red and blue change places: a yellow face turns blue, white and black stay."""
    return Image.merge("RGB", picture.split()[::-1])


def paper_cut(picture: Image.Image) -> Image.Image:
    """A few flat tones of red on white."""
    tones = [round(TONES * value / 255) * 255 // TONES for value in range(256)]
    return ImageOps.colorize(ImageOps.grayscale(picture).point(tones), "#5a0018", "white", mid="#e03232")


@dataclass(frozen=True)
class Look:
    """What a base learns: some of the tiny model's own pictures, changed; and how it learns them."""

    name: str
    kind: str
    text: str
    change: Callable[[Image.Image], Image.Image]
    word: str  # that the captions have; "" takes all
    upright: bool  # only this view of each emoji, or all eight
    peak: float  # learning rate
    rank: int  # of the LoRA; 0 trains all weights

    @property
    def title(self) -> str:
        return f"{self.name.replace('_', ' ').capitalize()}: {self.kind}"


LOOKS = (
    Look(
        "blue_faces",
        "a tuned checkpoint",
        "All weights of the UNet learned the faces, drawn in blue: as a community checkpoint knows one kind of picture "
        "best, and draws it in a way of its own.",
        blue,
        word="face",
        upright=False,
        peak=3e-4,
        rank=0,
    ),
    Look(
        "paper_cut",
        "a style LoRA",
        "A LoRA of rank 8 learned all emoji as if cut from red paper; it is merged into the tiny model, and TCD's is "
        "put on top.",
        paper_cut,
        word="",
        upright=True,
        peak=1e-3,
        rank=8,
    ),
)


def caption(picture: Path) -> str:
    return picture.with_suffix(".txt").read_text(encoding="utf-8").strip()


def chosen(look: Look, data: Path) -> list[Path]:
    """The pictures that are changed. Raises ValueError where there are none."""
    found = [path for path in sorted(data.glob("*_*/*.png")) if not (look.upright and "_" in path.stem)]
    found = [path for path in found if not look.word or look.word in caption(path).split()]
    if not found:
        such = f" with the word {look.word!r} in their captions" if look.word else ""
        raise ValueError(f"{look.name} needs pictures{such}, there are none in {data}")
    return found


def draw(look: Look, data: Path, folder: Path) -> Path:
    """A kohya folder of the changed pictures with their captions, made anew; returns it."""
    sources, inside = chosen(look, data), folder / "1_emoji"
    shutil.rmtree(folder, ignore_errors=True)
    inside.mkdir(parents=True)
    for source in tqdm(sources, desc=f"draw {look.name}", unit="picture"):
        with Image.open(source) as image:
            look.change(image.convert("RGB")).save(inside / source.name)
        shutil.copyfile(source.with_suffix(".txt"), (inside / source.name).with_suffix(".txt"))
    return folder


def base_of(lab: Lab, look: Look) -> Base:
    """The tiny model with this look, tuned now if it was not before."""
    folder = lab.folder / "looks"
    pictures = draw(look, lab.data, folder / look.name)
    file = folder / f"{look.name}.safetensors"
    made = tune(Tuning(file, pictures, lab.scale.tuning_steps, lab.scale.batch, look.peak, look.rank))
    checkpoint, loras = (CHECKPOINT, (made,)) if look.rank else (made, ())
    return Base(look.name, checkpoint, loras, str(pictures), str(pictures) if look.word else "")


def unchanged(base: Base) -> Base:
    """The tiny model as it is, with the captions of a base, to be compared with the base's pictures."""
    name = f"{TINY.name}-{base.name}" if base.captions else TINY.name
    return Base(name, real=base.real, captions=base.captions)


@dataclass(frozen=True)
class Found:
    """The numbers of one base, all against its own pictures."""

    teacher: Measured
    ddim: By
    tcd: By
    unchanged: Measured
    real: Measured


def rows(lab: Lab) -> tuple[dict[int, Row], dict[int, Row]]:
    """DDIM and TCD by evaluations."""
    student = lab.student("tcd")
    return {n: Row("ddim", n // 2, W) for n in STEPS}, {n: student_row(student, n) for n in STEPS}


def results(lab: Lab, base: Base) -> Found:
    bench, (ddim, tcd) = lab.bench(base), rows(lab)
    return Found(
        bench.measure(TEACHER),
        {n: bench.measure(row) for n, row in ddim.items()},
        {n: bench.measure(row) for n, row in tcd.items()},
        lab.bench(unchanged(base)).measure(tcd[UNCHANGED]),
        bench.measure_real(),
    )


def table_of(found: Found) -> str:
    named = {f"the base's teacher, {TEACHER.steps} guided DDIM steps": found.teacher}
    named |= {f"DDIM, {n} evaluations": one for n, one in found.ddim.items()}
    named |= {f"TCD, {n} evaluations": one for n, one in found.tcd.items()}
    named[f"TCD, {UNCHANGED} evaluations, on the unchanged tiny model"] = found.unchanged
    named["one of the base's pictures for each caption"] = found.real
    return table(["method", *NAMES.values()], [[n, *(one.cell(m) for m in NAMES)] for n, one in named.items()])


def sheet(lab: Lab, base: Base) -> str:
    ddim, tcd = rows(lab)
    made = {f"teacher, {TEACHER.steps} guided steps": TEACHER}
    made |= {f"DDIM, {n} evaluations": ddim[n] for n in STEPS[1:]}
    made |= {f"TCD, {n} evaluations": row for n, row in tcd.items()}
    return lab.sheet(f"versatility_{base.name}", made, base)


def against_ddim(found: Found, factor: int) -> list[str]:
    """TCD against DDIM with `factor` times its evaluations, one verdict each."""
    pairs = [(found.tcd[n], found.ddim[factor * n]) for n in STEPS if factor * n in found.ddim]
    return [verdict(ours.values["frechet"], theirs.values["frechet"]) for ours, theirs in pairs]


def claim(look: Look, found: Found) -> Claim:
    """It holds where TCD is ahead of DDIM at equal evaluations and nearer to the look than on the unchanged model."""

    def numbers(by: By) -> str:
        return ", ".join(one.cell("frechet") for one in by.values())

    equal, paper = against_ddim(found, 1), against_ddim(found, 2)
    keeps = verdict(found.tcd[UNCHANGED].values["frechet"], found.unchanged.values["frechet"])
    return Claim(
        "section 5.3, figure 7",
        f"TCD can be applied as it is to {look.kind}, with high quality in only 2-8 steps",
        f"Frechet distance to the base's pictures with {', '.join(map(str, STEPS))} evaluations: TCD "
        f"{numbers(found.tcd)}; DDIM {numbers(found.ddim)} ({tally(equal)}; with the paper's count {tally(paper)}); "
        f"TCD on the unchanged model, {UNCHANGED} steps, {found.unchanged.cell('frechet')}",
        all_of([*equal, keeps]),
    )


TEXT = """The LoRA of table 1, as it is, on two models that it was not distilled from. Each learned another look for
{steps} steps of {batch} samples by the ordinary loss of diffusion models, and is compared with the pictures that it
learned from; TCD on the unchanged tiny model shows how far away they are. ControlNets and IP-Adapter, which the paper
shows too, do not exist for the tiny model. The network behind the measures never saw such pictures: it finds few of
their captions, even in those that were learned from (the last line of each table)."""


def part(lab: Lab, look: Look, base: Base, found: Found) -> str:
    """What the section says of one base."""
    learned = f"{look.text} It learned from {len(lab.bench(base).real.paths):,} pictures."
    return "\n\n".join([f"### {look.title}", learned, table_of(found), sheet(lab, base)])


def run(lab: Lab) -> Section:
    bases = {look: base_of(lab, look) for look in LOOKS}
    found = {look: results(lab, base) for look, base in bases.items()}
    text = TEXT.format(steps=lab.scale.tuning_steps, batch=lab.scale.batch)
    parts = [text, *(part(lab, look, base, found[look]) for look, base in bases.items())]
    return Section(TITLE, "\n\n".join(parts), [claim(look, one) for look, one in found.items()])
