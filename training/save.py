"""What a run leaves behind: the LoRA, or the checkpoint of a full fine-tuning, each at once or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import tcd
from tcd import embed, lora

from . import adapters, metadata
from .host import Models
from .network import Parts
from .options import Options, to_toml
from .sharding import whole

PRECISIONS = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DIFFUSERS_NAMES = ("SD15", "SD20", "SD21UnclipL", "SD21UnclipH")  # kohya's tools call the layers of SDXL as LDM does
PREFIX = "model.diffusion_model."  # of the diffusion model's tensors in a checkpoint
STEP, EPOCH = "-step{:08d}", "-{:06d}"  # what follows output_name in the names of saves on the way
WHAT_IT_IS = {"modelspec.architecture", "modelspec.implementation", "modelspec.title", "modelspec.resolution"}

Trained = dict[str, Tensor]


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path` and put it in place, or leave what is there as it is. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    try:
        write(scratch)
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    except Exception as error:  # torch and safetensors have errors of their own for a full disk
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def writable(folder: Path) -> None:
    """Raises ValueError for a folder in which no file can be made."""
    try:
        replace(folder / ".writable", lambda path: path.write_bytes(b"1"))
        (folder / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"output_dir {folder} cannot be written to: {error}") from error


def configuration_path(opts: Options) -> Path:
    return Path(opts.output_dir, f"{opts.output_name}.toml")


def save_configuration(opts: Options) -> None:
    """Write the resolved configuration beside the output."""
    replace(configuration_path(opts), lambda scratch: scratch.write_text(to_toml(opts), encoding="utf-8"))


class Saver:
    """Writes what was trained, under the names that kohya gives.

    Raises ValueError for a checkpoint whose file cannot take the student's weights, or that would be written over.
    """

    def __init__(self, models: Models, parts: Parts, opts: Options):
        self.models, self.parts, self.opts = models, parts, opts
        self.folder, self.dtype = Path(opts.output_dir), PRECISIONS[opts.save_precision]
        self.teacher = Path(opts.pretrained_model_name_or_path)
        if self.path.resolve() == self.teacher.resolve():
            raise ValueError(f"output_name {opts.output_name} would write over the teacher, {self.teacher}")
        if opts.full_finetune:
            self.check_names()

    @property
    def path(self) -> Path:
        """Of the finished run."""
        return self.folder / f"{self.opts.output_name}.safetensors"

    def check_names(self) -> None:
        """Raises ValueError unless the teacher's file has a tensor for each of the student's."""
        try:
            with safe_open(self.teacher, framework="pt") as file:
                there = set(file.keys())
        except Exception as error:
            raise ValueError(f"full_finetune writes the teacher's file anew, {self.teacher}: {error}") from error
        wanted = {PREFIX + name for name in self.parts.student_net.unet.state_dict()}
        if missing := sorted(wanted - there):
            count = f"{len(missing)} of {len(wanted)} weights of its diffusion model"
            reason = f"{count} have another name in it: no {missing[0]}"
            raise ValueError(f"full_finetune writes the teacher's file anew, but in {self.teacher} {reason}")

    def collect(self, keep: bool = True) -> Trained:
        """What is trained, for `save`. All processes have to call it; one that saves it `keep`s it."""
        return whole(self.parts.trained.state_dict(), keep)

    def save(self, step: int, suffix: str = "", trained: Trained | None = None) -> Path:
        """Write what was trained in `step` steps, or `trained`, collected before, in one process of many.

        Raises OSError where it cannot be: what was there stays.
        """
        trained = self.collect() if trained is None else trained
        path = self.path.with_name(self.opts.output_name + suffix + ".safetensors")
        described = metadata.of(self.models, adapters.as_trained(self.opts, self.parts.adapter), step)
        (self.save_checkpoint if self.opts.full_finetune else self.save_lora)(path, trained, described)
        return path

    def target_time(self, trained: Trained) -> dict[str, Tensor]:
        """The tensors of TCF(S+) besides the LoRA."""
        if not self.parts.hearing:
            return {}
        of_run = self.parts.hearing.embed
        written = tcd.TargetTime(of_run.out.out_features, of_run.width, of_run.scale)
        written.load_state_dict(part(trained, "target_time."))
        return embed.to_tensors(written, self.dtype)

    def save_lora(self, path: Path, trained: Trained, described: dict[str, str]) -> None:
        adapter = self.parts.adapter
        assert adapter is not None
        naming = {"names": "diffusers" if self.models.architecture in DIFFUSERS_NAMES else "own"}
        more = {"extra": self.target_time(trained), "net": self.models.unet}
        replace(path, lambda scratch: lora.save(scratch, adapter, described, self.dtype, **naming, **more))

    def save_checkpoint(self, path: Path, trained: Trained, described: dict[str, str]) -> None:
        """The teacher's file with the student's weights in their places. TCF(S+)'s embedding is a file beside it."""
        with safe_open(self.teacher, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            described = described | staying(file.metadata() or {}, described)
        student = part(trained, "unet.")
        tensors |= {PREFIX + name: weight.to("cpu", self.dtype).contiguous() for name, weight in student.items()}
        replace(path, lambda scratch: save_file(tensors, scratch, described))
        if beside := self.target_time(trained):
            told = lora.metadata_of(metadata.of_tcd(self.opts))
            name = f"{path.stem}-target_time.safetensors"
            replace(path.with_name(name), lambda scratch: save_file(beside, scratch, told))

    def forget(self, step: int, epoch: int) -> None:
        """Remove what is older, at this step and epoch, than what `save_last_n_steps` and `save_last_n_epochs` keep."""
        opts, old = self.opts, list[str]()
        if opts.save_last_n_steps:
            counts = range(opts.save_every_n_steps, step - opts.save_last_n_steps, opts.save_every_n_steps)
            old += map(STEP.format, counts)
        if opts.save_last_n_epochs:
            begin = epoch - (opts.save_last_n_epochs - 1) * opts.save_every_n_epochs
            old += map(EPOCH.format, range(opts.save_every_n_epochs, begin, opts.save_every_n_epochs))
        for suffix in old:
            (self.folder / f"{opts.output_name}{suffix}.safetensors").unlink(missing_ok=True)


def part(tensors: Trained, prefix: str) -> Trained:
    """The tensors below `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def staying(before: dict[str, str], described: dict[str, str]) -> dict[str, str]:
    """What the teacher's file says of itself and is still true: what kind of model it is, and all that is not new."""
    outdated = described.keys() | {"modelspec.hash_sha256"}
    return {name: value for name, value in before.items() if name not in outdated or name in WHAT_IT_IS}
