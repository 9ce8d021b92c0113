"""Show what the tiny model and its TCD LoRA can do: contact sheets, Frechet distance, retrieval, per evaluation.

    python -m demo.evaluate                # writes docs/tiny.md and docs/images/*.png; about 12 minutes on two cores

Every column gets the same captions and the same initial noise. A guided step costs two network evaluations. DDIM is
deterministic; TCD uses gamma 0.3.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import tcd
from demo import features
from training import host

ROOT = Path(__file__).resolve().parent.parent
LORA = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
IMAGES = ROOT / "docs" / "images"
CFG, GAMMA, SEED, BATCH = 4.0, 0.3, 7, 50


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
    *(Column(f"TCD, {n} step{'s' * (n > 1)}", True, n, 1.0) for n in (1, 2, 4)),
    *(Column(f"DDIM, {n} step{'s' * (n > 1)}", False, n, 1.0) for n in (1, 2, 4)),
    *(Column(f"guided DDIM, {n} step{'s' * (n > 1)}", False, n, CFG) for n in (1, 2, 50)),
]


class Sampler:
    """The tiny model as a function from captions to pictures."""

    def __init__(self, lora: Path | None = LORA):
        self.models = host.load(ROOT / "demo" / "tiny.safetensors", "demo.tiny:load")
        self.adapter = tcd.lora.load(lora, self.models.unet) if lora else tcd.lora.Lora()
        self.sched = self.models.sched
        self.empty = host.encode_text(self.models, [""])

    def predict(self, context: Tensor) -> tcd.Predict:
        def net(x: Tensor, t: Tensor) -> Tensor:
            return self.models.unet(x, t, context=context, transformer_options={})

        return tcd.as_x0(net, self.sched, self.models.kind)

    @torch.inference_mode()
    def __call__(self, column: Column, captions: list[str], noise: Tensor) -> Tensor:
        """Pictures [B, 128, 128, 3] in [0, 1]."""
        predict = self.predict(host.encode_text(self.models, captions))
        if column.cfg != 1:
            predict = tcd.guided(predict, self.predict(self.empty.expand(len(captions), -1, -1)), column.cfg - 1)
        times, generator = tcd.timesteps(self.sched, column.steps), torch.Generator().manual_seed(SEED)
        gamma = GAMMA if column.lora else 0.0
        with tcd.lora.toggle(self.adapter, column.lora):
            *_, last = tcd.sample(predict, self.sched, noise, times, gamma, generator=generator)
        return self.models.vae.decode(self.models.model.model.process_latent_out(last.x_s)).clamp(0, 1)


def noise_for(count: int) -> Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(SEED))


def blurred(pictures: Tensor) -> Tensor:
    """[B, H, W, 3] halved in size and flattened: small shifts of an edge count less."""
    return F.avg_pool2d(pictures.permute(0, 3, 1, 2), 2).flatten(1)


def retrieval(samples: Tensor, real: Tensor, own: Tensor, among: int = 5) -> float:
    """How often the picture of the caption, real[own], is among the sample's nearest real ones."""
    nearest = torch.cdist(blurred(samples), blurred(real)).topk(among, largest=False).indices
    return (nearest == own[:, None]).any(1).float().mean().item()


def sheet(rows: list[tuple[str, Tensor]], captions: list[str] | None = None) -> Image.Image:
    """Labelled rows of pictures [n, H, W, 3]; captions go above the columns."""
    size, left, top = 128, 150, 34 if captions else 4
    canvas = Image.new("RGB", (left + size * len(rows[0][1]), top + size * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, caption in enumerate(captions or []):
        draw.text((left + size * i + 4, 4), "\n".join(wrap(caption, 20)), fill="black")
    for j, (label, pictures) in enumerate(rows):
        draw.text((4, top + size * j + 50), "\n".join(wrap(label, 22)), fill="black")
        for i, picture in enumerate(pictures):
            tile = Image.fromarray((picture.cpu() * 255).round().byte().numpy())
            canvas.paste(tile, (left + size * i, top + size * j))
    return canvas


def wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def gallery(pictures: Tensor, captions: list[str]) -> Image.Image:
    """64 pictures in an 8 x 8 grid with their captions below."""
    size, line = 128, 28
    canvas = Image.new("RGB", (8 * size, 8 * (size + line)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % 8 * size, i // 8 * (size + line)
        canvas.paste(Image.fromarray((picture.cpu() * 255).round().byte().numpy()), (x, y))
        draw.text((x + 4, y + size), "\n".join(wrap(caption, 21)[:2]), fill="black")
    return canvas


def evenly(count: int, wanted: int) -> Tensor:
    """`wanted` indices spread evenly over range(count): no picking."""
    return torch.linspace(0, count - 1, wanted).round().long()


def main(wanted: int) -> None:
    host.start()
    from demo.train_tiny import pictures

    data, captions = pictures()
    real = data.permute(0, 2, 3, 1).float() / 255
    tower, sampler = features.load(), Sampler()
    real_features = torch.cat([tower(batch.permute(0, 3, 1, 2)) for batch in real.split(100)])
    own = evenly(len(captions), wanted)
    texts, noise = [captions[i] for i in own], noise_for(len(own))

    rows, samples = [], {}
    for column in COLUMNS:
        began = time.monotonic()
        batches = range(0, len(own), BATCH)
        made = torch.cat(
            [sampler(column, texts[i : i + BATCH], noise[i : i + BATCH]) for i in tqdm(batches, desc=column.name)]
        )
        distance = tcd.metrics.frechet_distance(tower(made.permute(0, 3, 1, 2)), real_features)
        rows.append((column, distance, retrieval(made, real, own), (time.monotonic() - began) / len(own)))
        samples[column.name] = made
        print(f"{column.name:22s} {column.evaluations:4d} evaluations  FD {distance:8.3f}  top-5 {rows[-1][2]:.1%}")
    report(rows, samples, texts, len(own))


def report(rows: list, samples: dict[str, Tensor], texts: list[str], count: int) -> None:
    """Write the contact sheets and the table."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    few = evenly(count, 8)
    sheet([(name, made[few]) for name, made in samples.items()], [texts[i] for i in few]).save(
        IMAGES / "tiny_compare.png"
    )
    many = evenly(count, 64)
    gallery(samples["guided DDIM, 50 steps"][many], [texts[i] for i in many]).save(IMAGES / "tiny_teacher.png")
    gallery(samples["TCD, 4 steps"][many], [texts[i] for i in many]).save(IMAGES / "tiny_tcd.png")
    table = [f"| {c.name} | {c.cfg:g} | {c.evaluations} | {fd:.2f} | {hit:.1%} |" for c, fd, hit, _ in rows]
    results = {c.name: {"evaluations": c.evaluations, "fd": fd, "top5": hit} for c, fd, hit, _ in rows}
    (ROOT / "docs" / "tiny.json").write_text(json.dumps({"captions": count, "columns": results}, indent=1) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=400, help="how many of the captions (default: %(default)s)")
    main(parser.parse_args().captions)
