"""Show what the tiny model and its TCD LoRA can do, at equal network evaluations.

    python -m demo.evaluate                  # writes docs/tiny.md and its pictures, on all 1,599 captions
    python -m demo.evaluate --captions 400   # the same on 400 of them, in a quarter of the time

Every column gets the same captions and the same initial noise. A guided step costs two network evaluations. DDIM is
deterministic; TCD uses gamma 0.3 and no guidance.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import tcd
from demo import features, sheets
from training import host

ROOT = Path(__file__).resolve().parent.parent
LORA = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
DOCS = ROOT / "docs"
CFG, GAMMA, SEED, BATCH = 4.0, 0.3, 7, 64
SIZE = host.Size(128, 128, 0, 0, 128, 128)
TEACHER = "guided DDIM, 50 steps"


@dataclass(frozen=True)
class Column:
    """One way to sample: with or without the LoRA, how many steps, under which guidance."""

    name: str
    lora: bool
    steps: int
    cfg: float

    @property
    def evaluations(self) -> int:
        return self.steps * (1 if self.cfg == 1 else 2)


COLUMNS = [
    Column("TCD, 1 step", True, 1, 1.0),
    Column("DDIM, 1 step", False, 1, 1.0),
    Column("TCD, 2 steps", True, 2, 1.0),
    Column("DDIM, 2 steps", False, 2, 1.0),
    Column("guided DDIM, 1 step", False, 1, CFG),
    Column("TCD, 4 steps", True, 4, 1.0),
    Column("DDIM, 4 steps", False, 4, 1.0),
    Column("guided DDIM, 2 steps", False, 2, CFG),
    Column(TEACHER, False, 50, CFG),
]


class Sampler:
    """The tiny model as a function from captions to pictures."""

    def __init__(self, lora: Path = LORA):
        self.models = host.place(host.load(ROOT / "demo" / "tiny.safetensors", "demo.tiny:load"))
        self.adapter = tcd.lora.load(lora, self.models.unet)
        self.net = host.Network(self.models)
        self.empty = host.encode_text(self.models, "")

    def predict(self, conds: list[host.Cond]) -> tcd.Predict:
        def net(x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, t, conds, [SIZE] * len(conds))

        return tcd.as_x0(net, self.net.sched, self.net.kind)

    @torch.inference_mode()
    def __call__(self, column: Column, captions: list[str], noise: Tensor) -> Tensor:
        """Pictures [B, 128, 128, 3] in [0, 1]."""
        predict = self.predict([host.encode_text(self.models, caption) for caption in captions])
        if column.cfg != 1:
            predict = tcd.guided(predict, self.predict([self.empty] * len(captions)), column.cfg - 1)
        times, generator = tcd.timesteps(self.net.sched, column.steps), torch.Generator().manual_seed(SEED)
        x, gamma = noise.to(self.models.device), GAMMA if column.lora else 0.0
        with tcd.lora.toggle(self.adapter, column.lora):
            *_, last = tcd.sample(predict, self.net.sched, x, times, gamma, generator=generator)
        return host.decode_latents(self.models, last.x_s)

    def all(self, column: Column, captions: list[str], noise: Tensor) -> Tensor:
        """The same in batches, with progress."""
        batches = tqdm(range(0, len(captions), BATCH), desc=column.name)
        return torch.cat([self(column, captions[i : i + BATCH], noise[i : i + BATCH]) for i in batches])


def blurred(pictures: Tensor) -> Tensor:
    """[B, H, W, 3] halved in size and flattened: small shifts of an edge count less."""
    return F.avg_pool2d(pictures.permute(0, 3, 1, 2), 2).flatten(1)


def retrieval(samples: Tensor, real: Tensor, emoji: Tensor, own: Tensor, among: int = 5) -> float:
    """How often a sample's own emoji is among the nearest, each as near as its nearest view.

    samples [n, H, W, 3] should show the emoji `own` [n]; real [m, H, W, 3] are views of the emoji numbered [m].
    """
    distance = torch.cdist(blurred(samples), torch.cat([blurred(part) for part in real.split(256)]))
    nearest = torch.full((len(samples), int(emoji.max()) + 1), torch.inf)
    nearest.scatter_reduce_(1, emoji.expand(len(samples), -1), distance, "amin")
    return (nearest.topk(among, largest=False).indices == own[:, None]).any(1).float().mean().item()


def evenly(count: int, wanted: int) -> Tensor:
    """`wanted` indices spread evenly over range(count): no picking."""
    return torch.linspace(0, count - 1, wanted).round().long()


@torch.inference_mode()
def evaluate(wanted: int) -> None:
    """Sample every column, measure, write the report."""
    host.start()
    from demo.train_tiny import pictures

    data, captions = pictures()
    names = list(dict.fromkeys(captions))
    number = {name: i for i, name in enumerate(names)}
    emoji = torch.tensor([number[caption] for caption in captions])
    real = data.permute(0, 2, 3, 1).float() / 255
    own = evenly(len(names), wanted or len(names))
    texts = [names[i] for i in own]
    noise = torch.randn(len(own), 4, 16, 16, generator=torch.Generator().manual_seed(SEED))
    sampler = Sampler()

    def describe(images: Tensor) -> Tensor:
        return torch.cat([features.describe(batch) for batch in images.split(BATCH)])

    reference, made, lines = describe(real), {}, []
    for column in COLUMNS:
        images = made[column.name] = sampler.all(column, texts, noise)
        distance = tcd.metrics.frechet_distance(describe(images), reference)
        hits = retrieval(images, real, emoji, own)
        lines.append(f"| {column.name} | {column.evaluations} | {distance:.2f} | {hits:.1%} |")
        print(lines[-1])
    views = torch.stack([(emoji == i).nonzero()[-1, 0] for i in own])
    floor = tcd.metrics.frechet_distance(describe(real[views]), reference)
    lines.append(f"| a real view of each of these emoji | 0 | {floor:.2f} | 100.0% |")
    report(made, texts, lines, wanted)


def report(made: dict[str, Tensor], texts: list[str], lines: list[str], wanted: int) -> None:
    """Write the contact sheets and the page around them."""
    images = DOCS / "images"
    images.mkdir(parents=True, exist_ok=True)
    few, many = evenly(len(texts), 8), evenly(len(texts), 64)
    order = sorted(made, key=lambda name: name != TEACHER)
    sheet = sheets.rows({name: made[name][few] for name in order}, [texts[i] for i in few])
    sheet.save(images / "tiny_compare.png", optimize=True)
    for name, file in ((TEACHER, "tiny_teacher.png"), ("TCD, 4 steps", "tiny_tcd.png")):
        sheets.gallery(made[name][many], [texts[i] for i in many]).save(images / file, optimize=True)
    command = "python -m demo.evaluate" + (f" --captions {wanted}" if wanted else "")
    page = PAGE.format(command=command, count=len(texts), table="\n".join(lines), cfg=CFG, gamma=GAMMA)
    (DOCS / "tiny.md").write_text(page, encoding="utf-8")


PAGE = """# The tiny model, and what TCD does to it

Made by `{command}`: one sample for each of {count:,} captions, from the same initial noise in every
row. A guided step (cfg {cfg:g}) costs two network evaluations. TCD samples without guidance, with gamma {gamma:g}.

* **Frechet distance** to all 12,792 training pictures (eight views of 1,599 emoji), between the 64 features of
  `demo/features.safetensors`, a CNN trained to match emoji with their captions and to tell how blurred they are, which
  knows nothing of the diffusion model. Lower is better.
* **Top-5**: how often the caption's own emoji is among the five nearest (pixel distance to its nearest view, after
  halving the size). Higher is better.

| method | evaluations | Frechet distance | top-5 |
| --- | ---: | ---: | ---: |
{table}

## The same captions and noise, by method
![contact sheet](images/tiny_compare.png)

## The teacher: 64 captions, guided DDIM, 50 steps (100 evaluations)
![teacher](images/tiny_teacher.png)

## The TCD LoRA: the same 64 captions, 4 evaluations
![TCD](images/tiny_tcd.png)
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=0, help="how many of the captions (default: all)")
    evaluate(parser.parse_args().captions)
