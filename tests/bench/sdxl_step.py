"""A training step of SDXL's architecture, random weights, on a GPU: samples a second, memory, share of its peak.

    python3 dev.py bench sdxl                           # 1024 px, rank 64, bf16, recomputation, batches of 1, 4 and 16
    .venv/bin/python tests/bench/sdxl_step.py --small   # a small network of the same kind: that the script runs

Nothing is loaded: pictures and captions are random numbers. The operations are counted by torch, with those that are
done twice for want of memory. The peak is the card's for dense bf16, by its data sheet.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests' own helpers

import small_models

import tcd
from training import checkpointing, host
from training.methods import METHODS
from training.network import Parts
from training.options import Options

PEAKS = {"H200": 989, "H100": 989, "A100": 312, "A800": 312, "4090": 165, "3090": 71, "L40S": 362, "A6000": 155}
ROUNDS = 5
TEXT, POOLED, LENGTH = 2048, 1280, 77


def peak_of(card: str) -> float | None:
    """TFLOP/s of a card by its name."""
    return next((peak for name, peak in PEAKS.items() if name in card), None)


def models_of(small: bool, device: torch.device) -> host.Models:
    """SDXL's diffusion model alone, with random weights; its other parts are not needed for a step."""
    host.start()
    if small:
        patcher, *_ = small_models.sdxl(dtype=torch.bfloat16)
        return host.Models(patcher, None, None)
    from demo.checkpoints import SDXL

    family = small_models.Family("SDXL", SDXL, pooled=True)
    model = small_models.model_of(family, torch.bfloat16, str(device))
    with torch.no_grad():
        for weight in model.diffusion_model.parameters():
            weight.normal_(std=0.02)
    model.diffusion_model.requires_grad_(False).eval()
    return host.Models(SimpleNamespace(model=model), None, None)


class Step:
    """One optimizer step of TCD on random latents."""

    def __init__(self, models: host.Models, batch: int, pixels: int, device: torch.device, widths: tuple[int, int]):
        torch.manual_seed(0)
        self.opts = Options(mixed_precision="bf16", network_dim=64, network_args=("target=blocks",), ends=0)
        self.parts, self.batch, self.device = Parts(models, self.opts), batch, device
        self.method = METHODS["tcd"](self.opts, models.sched)
        self.optimizer = torch.optim.AdamW(self.parts.weights, lr=1e-4, fused=True)
        text, pooled = widths
        self.conds = [host.Cond(torch.randn(1, LENGTH, text), torch.randn(1, pooled)) for _ in range(batch)]
        self.sizes = [host.Size(pixels, pixels, 0, 0, pixels, pixels)] * batch
        self.latents = torch.randn(batch, 4, pixels // 8, pixels // 8, device=device)

    def __call__(self) -> float:
        times = tuple(t.to(self.device) for t in tcd.draw_times(self.batch, self.parts.sched))
        w = torch.full((self.batch,), 6.0, device=self.device)
        roles = self.parts.roles(self.conds, self.conds[0].zeros(), self.sizes, w)
        loss = self.method.loss(roles, self.latents, torch.randn_like(self.latents), times)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()  # which waits for the device

    def remove(self) -> None:
        """Take the LoRA off the shared network."""
        assert self.parts.adapter is not None
        self.parts.adapter.remove()


def measure(step: Step) -> tuple[float, float]:
    """(seconds of a step, its TFLOP)."""
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), counter.get_total_flops() / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small network, on any machine")
    small = parser.parse_args().small
    if not small and not torch.cuda.is_available():
        sys.exit("SDXL is measured on a GPU, and none is here: --small runs the script on a small network")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    models = host.place(models_of(small, device), device)
    checkpointing.checkpoint_blocks(models.unet)
    pixels, widths = (64, (small_models.TEXT, small_models.POOLED)) if small else (1024, (TEXT, POOLED))
    print(f"{card}, {pixels} px, rank 64, bf16, recomputation, medians of {ROUNDS}\n")
    print("| batch | s a step | samples/s | TFLOP a sample | TFLOP/s | share of peak | peak GiB |\n|" + " ---: |" * 7)
    for batch in (1, 4, 16):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step = Step(models, batch, pixels, device, widths)
        seconds, work = measure(step)
        step.remove()
        peak, rate = peak_of(card), work / seconds
        share = f"{rate / peak:.0%}" if peak else "-"
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if device.type == "cuda" else "-"
        figures = f"{seconds:.3f} | {batch / seconds:.2f} | {work / batch:.3g} | {rate:.3g} | {share} | {memory}"
        print(f"| {batch} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
