"""Go on training the tiny model with the ordinary loss of diffusion models: all weights of the UNet, or a LoRA.

The first is to the tiny model what a community checkpoint is to SDXL, the second what a style LoRA is. Neither knows
anything of distillation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

import tcd
from demo.train_tiny import SEED, learning_rate, velocity_weight
from tcd import lora
from training import data, host
from training.data.cache import key
from training.draws import generator
from training.options import Options
from training.save import PREFIX
from training.save import replace as put

from .memory import content
from .trainings import CHECKPOINT

RECIPE = "tcd.tuned_by"  # in the metadata of what was made
NO_CAPTION = 0.1  # part of the samples: guidance asks what the model does without any
WARMUP = 20


@dataclass(frozen=True)
class Tuning:
    """What is learned, and the file that keeps it: a LoRA of this rank, or with rank 0 a whole checkpoint."""

    file: Path
    pictures: Path  # kohya folder with captions
    steps: int
    batch: int
    peak: float  # learning rate
    rank: int = 0

    @property
    def recipe(self) -> str:
        """Of everything that the file follows from, as far as files and options tell it."""
        files = [CHECKPOINT, *sorted(path for path in self.pictures.rglob("*") if path.is_file())]
        contents = [(path.name, content(path)) for path in files]
        return key(contents, self.steps, self.batch, self.peak, self.rank)

    def done(self) -> bool:
        return recipe_of(self.file) == self.recipe


def recipe_of(file: Path) -> str:
    """What a tuned file was made by; nothing where it is missing, broken or another one."""
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get(RECIPE, "")
    except (OSError, SafetensorError):
        return ""


def dataset_of(models: host.Models, tuning: Tuning) -> data.Dataset:
    """Pictures and captions, encoded once."""
    opts = Options(
        train_data_dir=str(tuning.pictures),
        resolution="128",
        caption_dropout_rate=NO_CAPTION,
        vae_batch_size=32,
        seed=SEED,
    )
    return data.load(models, opts)


def loss_of(net: host.Network, batch: data.Batch, weight: Tensor, draw: torch.Generator) -> Tensor:
    """The squared error of eps at times drawn uniformly, weighted by weight [1000]; the mean over the batch."""
    x0 = batch.latents
    t = torch.randint(len(weight), (len(x0),), generator=draw)
    noise = torch.randn(x0.shape, generator=draw)
    device = next(net.unet.parameters()).device
    x = tcd.add_noise(net.sched, x0, noise, t).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        out = net(x, t.float().to(device), batch.conds, batch.sizes)
    error = (out.float() - noise.to(device)).square().mean(dim=(1, 2, 3))
    return (weight[t].to(device) * error).mean()


def fit(models: host.Models, dataset: data.Dataset, parameters: Sequence[nn.Parameter], tuning: Tuning) -> None:
    """Change the parameters, which the network computes with, by AdamW."""
    net, weight = host.Network(models), velocity_weight(models.sched)
    optimizer = torch.optim.AdamW(parameters, lr=tuning.peak)
    with tqdm(range(tuning.steps), desc=f"tune {tuning.file.stem}", unit="step") as bar:
        for step in bar:
            optimizer.param_groups[0]["lr"] = learning_rate(step, tuning.steps, tuning.peak, WARMUP)
            batch = dataset.batch(step, tuning.batch, slice(None))
            loss = loss_of(net, batch, weight, generator(SEED, "tune", step))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            bar.set_postfix(loss=f"{loss.item():.4f}")


def save_checkpoint(file: Path, unet: nn.Module, recipe: str) -> None:
    """The tiny model's file with the UNet's weights in their places."""
    from demo import tiny

    tensors, metadata = tiny.read(CHECKPOINT)
    tensors |= {PREFIX + name: weight.to("cpu", torch.half).contiguous() for name, weight in unet.state_dict().items()}
    put(file, lambda scratch: save_file(tensors, scratch, metadata | {RECIPE: recipe}))


def tune(tuning: Tuning) -> Path:
    """The file of a tuning, trained now unless it is there already, from the same pictures by the same recipe."""
    if tuning.done():
        return tuning.file
    models = host.load(CHECKPOINT, "demo.tiny:load")
    dataset = dataset_of(models, tuning)
    models = host.place(host.release(models))
    torch.manual_seed(SEED)
    if tuning.rank:
        adapter = lora.inject(models.unet, tuning.rank)
        fit(models, dataset, list(adapter.parameters()), tuning)
        lora.save(tuning.file, adapter, {RECIPE: tuning.recipe})
    else:
        fit(models, dataset, list(models.unet.requires_grad_(True).parameters()), tuning)
        save_checkpoint(tuning.file, models.unet, tuning.recipe)
    return tuning.file
