"""Train the embedded tiny model from nothing: first the VAE, then the UNet with its text encoder.

    python -m demo.train_tiny vae       # about 8 minutes on two cores
    python -m demo.train_tiny unet      # about 75 minutes
    python -m demo.train_tiny pack      # writes demo/tiny.safetensors

States are in demo/runs/, logs in demo/logs/. Every stage is seeded, saves its state every minute and resumes from it.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import tcd
from demo.dataset import FOLDER
from training import host

RUNS = Path(__file__).parent / "runs"  # states, large and passing
LOGS = Path(__file__).parent / "logs"  # what stays: loss against step
SEED = 20240229  # the day the TCD paper appeared
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [3.0, -3.0, 0.0], [1.5, 1.5, -3.0]])  # grey, red-green, yellow-blue
LATENT_NOISE = 0.05  # on unit-variance latents: what the decoder must shrug off


def pictures(upright: bool = False) -> tuple[torch.Tensor, list[str]]:
    """The pictures [B, 3, 128, 128] uint8, of every emoji all views or the upright one, and their captions.

    Raises FileNotFoundError before they were fetched."""
    files = sorted(file for file in (FOLDER / "1_emoji").glob("*.png") if not (upright and "_" in file.stem))
    if not files:
        raise FileNotFoundError(f"no pictures in {FOLDER}: run `python -m demo.dataset` first")
    array = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    captions = [file.with_suffix(".txt").read_text(encoding="utf-8").strip() for file in files]
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(), captions


def initialise(module: nn.Module, zero: tuple[str, ...] = ()) -> nn.Module:
    """PyTorch's default initialisation, which ComfyUI's layers leave out; last layers named in `zero` start at 0."""
    for name, child in module.named_modules():
        if isinstance(child, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_uniform_(child.weight, a=5**0.5)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, (nn.GroupNorm, nn.LayerNorm)) and child.weight is not None:
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Embedding):
            nn.init.normal_(child.weight, std=0.02)
        if name.endswith(zero):
            for parameter in child.parameters(recurse=False):
                nn.init.zeros_(parameter)
    return module.requires_grad_(True)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, cooldown: float = 0.25) -> float:
    """Warm-up, plateau, linear cool-down over the last quarter: a run can be lengthened until the cool-down begins."""
    left = (steps - step) / max(1, cooldown * steps)
    return peak * min(1.0, (step + 1) / warmup, left)


def ema_decay(step: int, longest: float = 0.999) -> float:
    """Decay of the running average: short at first, so that the initial weights are forgotten."""
    return min(longest, (1 + step) / (10 + step))


def run(
    name: str,
    modules: dict[str, nn.Module],
    loss_of: Callable[[int, torch.Generator], torch.Tensor],
    steps: int,
    peak: float,
) -> dict[str, torch.Tensor]:
    """The training loop of every stage: AdamW, EMA, clipping, a log, a resumable state. Returns the EMA weights."""
    RUNS.mkdir(exist_ok=True)
    LOGS.mkdir(exist_ok=True)
    state_file, log_file = RUNS / f"{name}.state.pt", LOGS / f"{name}.jsonl"
    weights = {f"{part}.{key}": p for part, module in modules.items() for key, p in module.named_parameters()}
    average = {key: p.detach().clone() for key, p in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=peak, weight_decay=0.01, fused=True)
    first, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        first, seconds, average = state["step"], state["seconds"], state["average"]
        optimizer.load_state_dict(state["optimizer"])
        for key, p in weights.items():
            p.data.copy_(state["weights"][key])

    def save(step: int) -> None:
        state = {"step": step, "seconds": seconds, "average": average, "optimizer": optimizer.state_dict()}
        state["weights"] = {key: p.detach() for key, p in weights.items()}
        torch.save(state, state_file.with_suffix(".tmp"))
        state_file.with_suffix(".tmp").replace(state_file)

    began = saved = time.monotonic()
    losses: list[float] = []
    with tqdm(range(first, steps), initial=first, total=steps, desc=name, mininterval=5) as bar:
        for step in bar:
            optimizer.param_groups[0]["lr"] = learning_rate(step, steps, peak)
            loss = loss_of(step, torch.Generator().manual_seed(SEED + step))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decay = ema_decay(step)
            for key, p in weights.items():
                average[key].lerp_(p.detach(), 1 - decay)
            losses.append(loss.item())
            if (step + 1) % 50 == 0:
                now = time.monotonic()
                seconds, began = seconds + now - began, now
                mean = sum(losses) / len(losses)
                row = {"step": step + 1, "loss": round(mean, 5), "norm": round(float(norm), 4), "s": round(seconds)}
                with log_file.open("a") as log:
                    log.write(json.dumps(row) + "\n")
                bar.set_postfix(loss=f"{mean:.4f}")
                losses.clear()
                if now - saved > 30 or step + 1 == steps:
                    save(step + 1)
                    saved = now
    if steps % 50:
        save(steps)
    return average


def on_two_cores():
    """bfloat16 products, twice as fast where the CPU has AMX or AVX-512 BF16; the weights stay in float32."""
    return torch.autocast("cpu", torch.bfloat16)


def build_vae() -> Any:
    from comfy.ldm.models.autoencoder import AutoencoderKL

    from demo import tiny

    vae = initialise(AutoencoderKL(**tiny.VAE))
    tiny.finish_vae(vae)
    return vae


def pixel_loss(out: torch.Tensor, x: torch.Tensor, detail: float) -> torch.Tensor:
    """L2 on the opponent colours of 8x8 blocks, and `detail` times L1 and L2 on pixels, L1 on pixel differences."""
    error = out - x
    colours = torch.einsum("oc,bchw->bohw", OPPONENT, F.avg_pool2d(error, 8))
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return colours.square().mean() + detail * (2 * error.square().mean() + error.abs().mean() + edges)


def whiteness(z: torch.Tensor) -> torch.Tensor:
    """How far the latent channels are from zero mean, unit variance and no correlation: four channels that say four
    things, on the scale that the diffusion model wants."""
    flat = z.transpose(0, 1).flatten(1)
    return (torch.cov(flat) - torch.eye(len(flat))).square().sum() + flat.mean(1).square().sum()


def train_vae(steps: int) -> None:
    """Encode, add a little noise, decode; the latents are kept white by a penalty.

    Colours come first and detail is added slowly: most emoji are yellow, grey or blue, so with everything at once the
    four channels go to edges and luminance, and red, green and pink all decode to brown (docs/log.md).
    """
    torch.manual_seed(SEED)
    data, _ = pictures(upright=True)
    vae = build_vae()

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        x = data[torch.randint(len(data), (16,), generator=generator)].float() / 127.5 - 1
        shift = torch.randint(-8, 9, (2,), generator=generator).tolist()
        x = torch.roll(x, shift, (-2, -1))
        x = x.flip(-1) if step % 2 else x
        with on_two_cores():
            z = vae.encode(x).float()
            noise = LATENT_NOISE * torch.randn(z.shape, generator=generator)
            out = vae.decode(z + noise).float()
        detail = min(1.0, max(0.0, (step - 100) / 300))
        return pixel_loss(out, x, detail) + 0.05 * whiteness(z)

    average = run("vae", {"vae": vae}, loss_of, steps, 1.5e-3)
    torch.save({key.removeprefix("vae."): value for key, value in average.items()}, RUNS / "vae.pt")


@torch.no_grad()
def latents() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(latents [B, 4, 16, 16] of zero mean and unit variance, mean [4], std [4]) of all pictures."""
    data, _ = pictures()
    vae = build_vae()
    vae.load_state_dict(torch.load(RUNS / "vae.pt", weights_only=True))
    raw = torch.cat([vae.encode(batch.float() / 127.5 - 1) for batch in data.split(32)])
    mean, std = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3))
    return (raw - mean[:, None, None]) / std[:, None, None], mean, std


def vocabulary(captions: list[str]) -> list[str]:
    """The special tokens, then every word of the captions, the frequent first."""
    from demo import tiny

    counts = Counter(word for caption in captions for word in tiny.words(caption))
    return tiny.SPECIAL + sorted(counts, key=lambda word: (-counts[word], word))


def token_rows(captions: list[str], vocabulary: list[str]) -> torch.Tensor:
    """Tokens [B, 16] as the tokenizer behind CLIPTextEncode gives them: start, words, end, end, ..."""
    from demo import tiny

    tokenizer, length = tiny.WordTokenizer(vocabulary), tiny.TEXT["max_position_embeddings"]
    rows = torch.full((len(captions), length), tiny.END)
    for row, caption in zip(rows, captions, strict=True):
        ids = tokenizer(caption)["input_ids"]
        row[: len(ids)] = torch.tensor(ids)
    return rows


def text_states(text: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The text transformer's output [B, 16, 128]. ComfyUI's own forward adds in place, which has no gradient."""
    from comfy.ldm.modules.attention import attention_pytorch

    model = text.text_model
    x = model.embeddings.token_embedding(tokens) + model.embeddings.position_embedding.weight
    mask = torch.full((x.shape[1], x.shape[1]), -torch.finfo(x.dtype).max).triu(1)
    for layer in model.encoder.layers:
        x = x + layer.self_attn(layer.layer_norm1(x), mask, attention_pytorch)
        x = x + layer.mlp(layer.layer_norm2(x))
    return model.final_layer_norm(x)


def build_unet_and_text(words: int) -> tuple[nn.Module, nn.Module]:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    from demo import tiny

    layers = comfy.ops.disable_weight_init
    unet = initialise(UNetModel(**tiny.UNET, operations=layers), zero=("out_layers.3", "proj_out", "out.2"))
    tiny.widen_groups(unet)
    text = initialise(tiny.TinyTextModel({**tiny.TEXT, "vocab_size": words}, torch.float32, "cpu", layers))
    return unet, text


def velocity_weight(sched: tcd.Schedule) -> torch.Tensor:
    """1 / alpha^2 at every step [1000], at most 20, of mean 1: the squared error of v exceeds that of eps by it."""
    weight = sched.alpha(torch.arange(1000.0)).pow(-2).clamp(max=20)
    return weight / weight.mean()


def train_unet(steps: int) -> None:
    """UNet and text encoder on Stable Diffusion's schedule; one caption in ten is left empty, for guidance.

    Weighted as the error of the velocity would be: what a caption decides is decided at high noise, where the error of
    the noise is small and that of the picture large (docs/log.md).
    """
    from demo import tiny

    torch.manual_seed(SEED)
    _, captions = pictures()
    z, mean, std = latents()
    words = vocabulary(captions)
    tokens, empty = token_rows(captions, words), token_rows([""], words)
    unet, text = build_unet_and_text(len(words))
    sched = tcd.DiscreteVP.scaled_linear()
    weight = velocity_weight(sched)

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(z), (64,), generator=generator)
        t = torch.randint(1000, (64,), generator=generator)
        noise = torch.randn(z[pick].shape, generator=generator)
        chance = torch.rand(64, 1, generator=generator)
        ids = torch.where(chance < 0.1, empty, tokens[pick])
        unseen = (torch.rand(ids.shape, generator=generator) < 0.02) & (ids > tiny.UNKNOWN)
        ids = ids.masked_fill(unseen, tiny.UNKNOWN)
        with on_two_cores():
            out = unet(tcd.add_noise(sched, z[pick], noise, t), t.float(), context=text_states(text, ids))
        return (weight[t] * (out.float() - noise).square().mean(dim=(1, 2, 3))).mean()

    average = run("unet", {"unet": unet, "text": text}, loss_of, steps, 1.5e-3)
    torch.save({"weights": average, "words": words, "mean": mean, "std": std}, RUNS / "unet.pt")


def normalised(vae: dict[str, torch.Tensor], mean: torch.Tensor, std: torch.Tensor) -> dict[str, torch.Tensor]:
    """The VAE's weights with the latents' normalisation folded into its two 1x1 convolutions."""
    vae = dict(vae)
    weight, bias = vae["quant_conv.weight"].clone(), vae["quant_conv.bias"].clone()
    weight[:4], bias[:4] = weight[:4] / std[:, None, None, None], (bias[:4] - mean) / std
    vae["quant_conv.weight"], vae["quant_conv.bias"] = weight, bias
    back = vae["post_quant_conv.weight"]
    vae["post_quant_conv.weight"] = back * std[None, :, None, None]
    vae["post_quant_conv.bias"] = vae["post_quant_conv.bias"] + back[:, :, 0, 0] @ mean
    return vae


def preview(z: torch.Tensor) -> dict[str, list]:
    """Least-squares colours of the latent channels, for ComfyUI's fast preview."""
    rgb = F.avg_pool2d(pictures()[0].float() / 127.5 - 1, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 4)
    fit = torch.linalg.lstsq(torch.cat([flat, torch.ones(len(flat), 1)], 1), rgb).solution.tolist()
    return {"factors": fit[:4], "bias": fit[4]}


def pack(_: int) -> None:
    """Write the checkpoint: half precision, SD 1.x key names, vocabulary and preview in the metadata."""
    from demo import tiny

    trained = torch.load(RUNS / "unet.pt", weights_only=True)
    vae = torch.load(RUNS / "vae.pt", weights_only=True)
    vae = {key.replace("coder.1.", "coder.").replace("decoder.0.", "decoder."): value for key, value in vae.items()}
    parts = {
        "first_stage_model.": normalised(vae, trained["mean"], trained["std"]),
        "model.diffusion_model.": tiny.part(trained["weights"], "unet."),
        "cond_stage_model.transformer.": tiny.part(trained["weights"], "text."),
    }
    weights = {prefix + key: value.half().contiguous() for prefix, of in parts.items() for key, value in of.items()}
    metadata = {
        "modelspec.architecture": tiny.ARCHITECTURE,
        "modelspec.title": "Tiny emoji model of Trajectory Consistency Distillation",
        "modelspec.license": "MIT data (Fluent Emoji), Apache-2.0 weights",
        "tcd.vocabulary": json.dumps(trained["words"]),
        "tcd.preview": json.dumps(preview(latents()[0])),
        "tcd.seed": str(SEED),
    }
    save_file(weights, tiny.CHECKPOINT, metadata)
    print(f"{tiny.CHECKPOINT}: {tiny.CHECKPOINT.stat().st_size / 2**20:.1f} MiB")


STAGES: dict[str, tuple[Callable[[int], None], int]] = {
    "vae": (train_vae, 1200),
    "unet": (train_unet, 10_000),
    "pack": (pack, 0),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--steps", type=int, help="optimizer steps in all (default: the stage's own)")
    arguments = parser.parse_args()
    host.start()
    stage, default = STAGES[arguments.stage]
    stage(arguments.steps or default)
