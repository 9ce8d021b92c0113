"""What a training run leaves behind: the LoRA with its metadata, and the state that a resumed run goes on from."""

import json
import time
from pathlib import Path

import torch

from tcd import lora

from . import host, options

PRECISIONS = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def metadata(models: host.Models, opts: options.Options, step: int) -> dict[str, str]:
    """What kohya writes, so that its tools and every host can tell what this file is; and what TCD adds."""
    alpha = opts.network_alpha or float(opts.network_dim)
    return lora.metadata_of(
        {
            "ss_base_model_version": models.architecture,
            "ss_sd_model_name": Path(opts.pretrained_model_name_or_path).name,
            "ss_network_module": "networks.lora",
            "ss_network_dim": opts.network_dim,
            "ss_network_alpha": alpha,
            "ss_network_args": json.dumps({"conv_dim": opts.network_dim, "conv_alpha": alpha}),
            "ss_v2": "True" if models.architecture.startswith("SD2") else "False",
            "ss_learning_rate": opts.learning_rate,
            "ss_steps": step,
            "ss_max_train_steps": opts.max_train_steps,
            "ss_batch_size_per_device": opts.train_batch_size,
            "ss_seed": opts.seed,
            "ss_mixed_precision": opts.mixed_precision,
            "ss_training_comment": opts.training_comment or None,
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{models.architecture}/lora",
            "modelspec.title": opts.output_name,
            "modelspec.resolution": f"{opts.resolution}x{opts.resolution}",
            "tcd.method": "tcd",
            "tcd.tcf": opts.tcf,
            "tcd.solver": opts.solver,
            "tcd.skip_steps": opts.skip_steps,
            "tcd.ends": opts.ends,
            "tcd.guidance": [opts.guidance_min, opts.guidance_max],
            "tcd.uncond": opts.uncond,
        }
    )


class Log:
    """The loss in JSON lines beside the LoRA: a row every 50 steps, with the mean since the row before."""

    def __init__(self, opts: options.Options):
        self.path, self.last = Path(opts.output_dir, f"{opts.output_name}.jsonl"), opts.max_train_steps
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.losses: list[float] = []
        self.began = time.monotonic()

    def add(self, step: int, loss: float, norm: float) -> str:
        """Count one step in; returns the mean loss as text."""
        self.losses.append(loss)
        mean = sum(self.losses) / len(self.losses)
        if step % 50 == 0 or step == self.last:
            row = {"step": step, "loss": mean, "norm": norm, "s": round(time.monotonic() - self.began)}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.losses.clear()
        return f"{mean:.5f}"


class Saver:
    """Where the LoRA and the state go, and how they come back."""

    def __init__(
        self, models: host.Models, opts: options.Options, adapter: lora.Lora, optimizer: torch.optim.Optimizer
    ):
        self.models, self.opts, self.adapter, self.optimizer = models, opts, adapter, optimizer
        self.folder = Path(opts.output_dir)
        self.state = self.folder / f"{opts.output_name}-state.pt"

    def save(self, step: int, name: str) -> Path:
        """Write the LoRA, and the state when asked for, each at once or not at all."""
        path = self.folder / f"{name}.safetensors"
        described = metadata(self.models, self.opts, step)
        lora.save(path, self.adapter, described, PRECISIONS[self.opts.save_precision])
        if self.opts.save_state:
            scratch = self.state.with_suffix(".tmp")
            state = {"step": step, "lora": self.adapter.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state, scratch)
            scratch.replace(self.state)
        return path

    def resume(self) -> int:
        """Load the state that was asked for; returns the step to go on from. Raises ValueError if it does not fit."""
        wanted = self.state if self.opts.resume == "auto" else Path(self.opts.resume)
        if not self.opts.resume or not wanted.is_file():
            return 0
        try:
            state = torch.load(wanted, weights_only=True)
            self.adapter.load_state_dict(state["lora"])
            self.optimizer.load_state_dict(state["optimizer"])
            return state["step"]
        except Exception as error:
            reason = f"{wanted} is no state of a run with this model and network_dim {self.opts.network_dim}"
            raise ValueError(f"{reason}: {error}") from error
