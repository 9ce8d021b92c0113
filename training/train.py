"""Distil a diffusion model into a TCD LoRA (Algorithm 2 of the paper).

    python -m training.train --config_file demo/tcd.toml

One network plays all three parts: with the LoRA off it is the teacher, with the LoRA on the student, and with the LoRA
on but without gradient the target.
"""

import math
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import tcd
from tcd import lora

from . import data, host, options
from .save import Log, Saver

SCHEDULES = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}


def encode(models: host.Models, opts: options.Options) -> data.Dataset:
    """Find, check and encode all pictures and captions, once."""
    samples = data.find(Path(opts.train_data_dir), opts.caption_extension)
    pictures = tqdm(samples, desc="pictures", unit="picture")
    latents = [host.encode_picture(models, data.open_picture(s.picture, opts.resolution), s.picture) for s in pictures]
    contexts = host.encode_text(models, ["", *(s.caption for s in samples)])
    uncond = {"empty_prompt": contexts[:1], "zeros": torch.zeros_like(contexts[:1])}[opts.uncond]
    order = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor([s.repeats for s in samples]))
    device = next(models.unet.parameters()).device
    return data.Dataset(torch.stack(latents).to(device), contexts[1:].to(device), uncond.to(device), order)


class Distillation:
    """The three parts that one UNet and its LoRA play, and the loss between them."""

    def __init__(self, models: host.Models, opts: options.Options):
        self.opts, self.unet, self.sched, self.kind = opts, models.unet, models.sched, models.kind
        self.adapter = lora.inject(self.unet, opts.network_dim, opts.network_alpha or None)

    def predict(self, context: Tensor) -> tcd.Predict:
        """x0-prediction of the UNet for these captions, as the LoRA is switched."""
        return tcd.as_x0(lambda x, t: self.unet(x, t, context=context, transformer_options={}), self.sched, self.kind)

    def teacher(self, context: Tensor, uncond: Tensor, w: Tensor) -> tcd.Predict:
        """The guided network without the LoRA."""
        guided = tcd.guided(self.predict(context), self.predict(uncond.expand(len(context), -1, -1)), w)

        def predict(x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
            with lora.toggle(self.adapter, False):
                return guided(x, t, s)

        return predict

    def loss(self, dataset: data.Dataset, generator: torch.Generator) -> Tensor:
        """One draw of Algorithm 2: pictures, noise, times and guidance."""
        opts, batch = self.opts, self.opts.train_batch_size
        x0, context = dataset.draw(batch, generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        drawn = tcd.draw_times(batch, self.sched, opts.skip_steps, generator, max(1, opts.ends))
        t, n, m = (v.to(x0.device) for v in drawn)
        w = opts.guidance_min + (opts.guidance_max - opts.guidance_min) * torch.rand(batch, generator=generator)
        student, teacher = self.predict(context), self.teacher(context, dataset.uncond, w)
        return tcd.tcd_loss(
            student, student, teacher, self.sched, x0, noise, t, n, m if opts.ends else None, opts.tcf, opts.solver
        )


def learning_rate(step: int, opts: options.Options) -> float:
    """Linear warm-up, then the chosen schedule over the rest."""
    if step < opts.lr_warmup_steps:
        return opts.learning_rate * (step + 1) / opts.lr_warmup_steps
    progress = (step - opts.lr_warmup_steps) / max(1, opts.max_train_steps - opts.lr_warmup_steps)
    return opts.learning_rate * SCHEDULES[opts.lr_scheduler](progress)


def precision(opts: options.Options, device: torch.device):
    """The context in which the network computes."""
    return torch.autocast(device.type, torch.bfloat16) if opts.mixed_precision == "bf16" else nullcontext()


def train(opts: options.Options) -> Path:
    """Load, inject, loop { draw, teacher step, target, student, loss, backward, step }, save; returns the path."""
    models = host.load(Path(opts.pretrained_model_name_or_path), opts.checkpoint_loader)
    torch.manual_seed(opts.seed)
    distillation, dataset = Distillation(models, opts), encode(models, opts)
    weights = list(distillation.adapter.parameters())
    optimizer = torch.optim.AdamW(weights, lr=opts.learning_rate, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    saver = Saver(models, opts, distillation.adapter, optimizer)
    first = saver.resume()
    size = sum(weight.numel() for weight in weights)
    layers = len(distillation.adapter.layers)
    print(f"{models.architecture}, {models.kind}-prediction; LoRA of {layers} layers, {size:,} weights")
    log = Log(opts)
    with tqdm(range(first, opts.max_train_steps), initial=first, total=opts.max_train_steps, desc="distil") as bar:
        for step in bar:
            optimizer.param_groups[0]["lr"] = learning_rate(step, opts)
            generator = torch.Generator().manual_seed(opts.seed * 1_000_003 + step)  # so a resumed run draws the same
            with precision(opts, weights[0].device):
                loss = distillation.loss(dataset, generator)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(weights, opts.max_grad_norm or math.inf)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient is not finite at step {step}: lower learning_rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            bar.set_postfix(loss=log.add(step + 1, loss.item(), norm.item()))
            if opts.save_every_n_steps and (step + 1) % opts.save_every_n_steps == 0:
                saver.save(step + 1, f"{opts.output_name}-step{step + 1:08d}")
    return saver.save(opts.max_train_steps, opts.output_name)


if __name__ == "__main__":
    try:
        print(f"wrote {train(options.read())}")
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: run again with --resume auto to go on from the last saved state")
