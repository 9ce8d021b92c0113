"""Every option of the trainer: name, default, meaning and allowed values. Shared ones are kohya's, in name and use."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import tcd


def option(
    default: Any, text: str, choices: tuple[str, ...] | None = None, least: float | None = None, of: str = ""
) -> Any:
    """A field with its help text, the allowed values where they are few, and the smallest where it is a number.

    `of` tells what it belongs to: another option's value, as "name=value value", or that one is given, as "name"; | is
    between several. Unless left at its default, it is refused in other company, where it would have no effect.
    """
    return field(default=default, metadata={"help": text, "choices": choices, "least": least, "of": of})


@dataclass(frozen=True)
class Model:
    """Model"""

    pretrained_model_name_or_path: str = option("", "the teacher: a .safetensors checkpoint")
    checkpoint_loader: str = option("", "package.module:function that gives MODEL, CLIP, VAE instead of ComfyUI's own")
    vae: str = option("", "a VAE file to use instead of the checkpoint's")
    text_encoders: tuple[str, ...] = option(
        (), "files of text encoders, where the checkpoint is a diffusion model alone"
    )
    v2: bool = option(False, "the checkpoint must be an SD 2.x: only checked, as ComfyUI tells by itself")
    v_parameterization: bool = option(False, "the checkpoint predicts v, though nothing in it says so")
    zero_terminal_snr: bool = option(False, "rescale the schedule to pure noise at its last step (v-prediction)")
    discrete_flow_shift: float = option(0.0, "shift of a flow model's noise levels (0: the model's own)", least=0)
    guidance_scale: float = option(3.5, "what a network with guidance built in (Flux dev) is told", least=0)
    clip_skip: int = option(0, "take the text encoder's n-th layer from the end (0: the model's own)", least=0)
    base_weights: tuple[str, ...] = option((), "LoRA files that are merged into teacher and student first")
    base_weights_multiplier: tuple[float, ...] = option((), "strengths of base_weights (default: 1 each)")


@dataclass(frozen=True)
class Data:
    """Data"""

    train_data_dir: str = option("", "folder of {repeats}_{name} folders with pictures and captions")
    dataset_config: str = option("", "TOML file of [general], [[datasets]] and [[datasets.subsets]], as kohya's")
    prompts: str = option(
        "", "no pictures: a text file of prompts, one a line, for which the teacher makes the latents"
    )
    latents_per_prompt: int = option(
        1, "how many latents the teacher makes of each of the prompts", least=1, of="prompts"
    )
    teacher_steps: int = option(25, "steps of the teacher for each of the prompts' latents", least=1, of="prompts")
    teacher_solver: str = option(
        "dpmpp_2s", "solver of the teacher for the prompts' latents", tuple(tcd.SOLVERS), of="prompts"
    )
    teacher_guidance: float = option(
        6.5, "w of the teacher for the prompts' latents; ComfyUI's cfg is 1 + w", least=0, of="prompts"
    )
    caption_extension: str = option(".txt", "ending of the caption files", of="train_data_dir|dataset_config")
    resolution: str = option("512", "size of the pictures in pixels: one number, or width,height")
    enable_bucket: bool = option(
        False,
        "pictures of other aspect ratios keep theirs, in buckets of about this area",
        of="train_data_dir|dataset_config",
    )
    min_bucket_reso: int = option(256, "smallest side of a bucket", least=8, of="enable_bucket=True|dataset_config")
    max_bucket_reso: int = option(1024, "largest side of a bucket", least=8, of="enable_bucket=True|dataset_config")
    bucket_reso_steps: int = option(
        64, "sides of buckets are multiples of this", least=8, of="enable_bucket=True|dataset_config"
    )
    bucket_no_upscale: bool = option(
        False, "buckets are made from the pictures, which are never enlarged", of="enable_bucket=True|dataset_config"
    )
    random_crop: bool = option(
        False, "cut pictures anywhere, not in the middle: anew every time", of="train_data_dir|dataset_config"
    )
    flip_aug: bool = option(False, "mirror every other picture at random", of="train_data_dir|dataset_config")
    caption_separator: str = option(",", "what divides a caption into tags")
    shuffle_caption: bool = option(
        False, "shuffle the tags of a caption every time", of="train_data_dir|dataset_config"
    )
    keep_tokens: int = option(0, "the first n tags stay where they are, and are never dropped", least=0)
    caption_dropout_rate: float = option(0.0, "part of the samples that get no caption", least=0)
    caption_dropout_every_n_epochs: int = option(0, "no captions in every n-th epoch", least=0)
    caption_tag_dropout_rate: float = option(
        0.0, "part of a caption's tags that are left out", least=0, of="train_data_dir|dataset_config"
    )
    cache_latents: bool = option(
        True, "encode every picture once; without, anew at every step", of="train_data_dir|dataset_config"
    )
    cache_latents_to_disk: bool = option(
        False, "keep the latents in output_dir/cache for the next run", of="train_data_dir|dataset_config"
    )
    vae_batch_size: int = option(1, "pictures that are encoded at once", least=1, of="train_data_dir|dataset_config")
    cache_text_encoder_outputs: bool = option(True, "encode every caption once, then let the text encoders go")
    cache_text_encoder_outputs_to_disk: bool = option(
        False, "keep the text encoders' outputs for the next run", of="cache_text_encoder_outputs=True"
    )
    max_data_loader_n_workers: int = option(
        2, "threads that read pictures", least=1, of="train_data_dir|dataset_config"
    )
    bad_data: str = option("refuse", "what to do with unreadable pictures and missing captions", ("refuse", "skip"))


@dataclass(frozen=True)
class Output:
    """Output"""

    output_dir: str = option("output", "where everything is written")
    output_name: str = option("tcd_lora", "file name of the LoRA, without ending")
    save_precision: str = option("fp16", "number format of the saved weights", ("float", "fp16", "bf16"))
    save_every_n_steps: int = option(0, "also save every n steps (0: only at the end)", least=0)
    save_every_n_epochs: int = option(0, "also save every n epochs", least=0)
    save_last_n_steps: int = option(
        0, "of those, keep the ones of the last n steps (0: all)", least=0, of="save_every_n_steps"
    )
    save_last_n_epochs: int = option(0, "of those, keep the last n (0: all)", least=0, of="save_every_n_epochs")
    save_state: bool = option(False, "with every save, also write what --resume needs")
    save_state_on_train_end: bool = option(False, "write it at the end")
    resume: str = option("", "a state file, or `auto`: this output's own state when there is one")
    no_metadata: bool = option(False, "leave ss_* and modelspec.* out of the file; tcd.*, which nodes need, stays")
    training_comment: str = option("", "goes into the metadata")
    sample_prompts: str = option("", "text file of prompts, with kohya's --n --w --h --d --s --l, for sample pictures")
    sample_every_n_steps: int = option(0, "sample pictures every n steps (0: never)", least=0, of="sample_prompts")
    sample_every_n_epochs: int = option(0, "sample pictures every n epochs", least=0, of="sample_prompts")
    sample_at_first: bool = option(False, "sample pictures before the first step", of="sample_prompts")
    sample_steps: str = option("1,2,4,8", "numbers of steps of the sample pictures, a column each", of="sample_prompts")
    sample_gamma: float = option(0.3, "gamma of the sample pictures", least=0, of="sample_prompts")
    ode_error_every_n_steps: int = option(
        0, "measure the ODE-solving error on the sample prompts every n steps", least=0, of="sample_prompts"
    )
    ode_error_steps: int = option(
        50,
        "steps of the teacher's solver: what it is measured against, and the sheet's first column",
        least=1,
        of="sample_prompts",
    )
    log_with: str = option("none", "besides JSON lines", ("none", "tensorboard"))
    logging_dir: str = option("", "where TensorBoard's files go (default: output_dir/logs)", of="log_with=tensorboard")
    log_every_n_steps: int = option(10, "a row of the log is the mean of so many steps", least=1)
    dry_run: bool = option(False, "check everything, print the plan, and stop before the first step")


@dataclass(frozen=True)
class Distillation:
    """Distillation"""

    method: str = option("tcd", "which loss", ("tcd", "cm", "lcm", "direct_cm"))
    tcf: str = option("1", "trajectory consistency function of the student", tuple(tcd.TCF), of="method=tcd")
    ends: int = option(
        1,
        "end points m for each sample and step; 0: all of them, in closed form (TCF(1), l2)",
        least=0,
        of="method=tcd",
    )
    skip_steps: int = option(20, "k: the teacher goes from t_{n+k} to t_n in one step", least=1, of="method=tcd")
    intervals: int = option(
        50,
        "N: equal parts of the schedule, of which the teacher crosses one (direct_cm: all below t)",
        least=1,
        of="method=cm lcm direct_cm",
    )
    solver: str = option("ddim", "the teacher's solver", tuple(tcd.SOLVERS))
    guidance_min: float = option(2.0, "smallest w of the guided teacher, (1 + w) cond - w uncond", least=0)
    guidance_max: float = option(14.0, "largest w; the same as guidance_min for a fixed one", least=0)
    uncond: str = option("empty_prompt", "the unconditional embedding", ("empty_prompt", "zeros"))
    loss_type: str = option("l2", "distance between student and target", ("l2", "huber"))
    huber_c: float = option(1e-3, "where the pseudo-Huber distance turns from square to absolute", of="loss_type=huber")
    loss_weighting: str = option(
        "uniform", "weight of a sample, by its signal-to-noise ratio at t", ("uniform", "min_snr", "snr_plus_one")
    )
    min_snr_gamma: float = option(5.0, "highest signal-to-noise ratio that counts", of="loss_weighting=min_snr")
    min_timestep: int = option(0, "lowest training step of t", least=0)
    max_timestep: int = option(1000, "t is below this training step", least=1)
    ema_decay: float = option(
        0.0, "the target is a running average of the student (0: the student itself)", least=0, of="method=tcd cm lcm"
    )


@dataclass(frozen=True)
class Network:
    """Network"""

    full_finetune: bool = option(False, "train all weights of the diffusion model, not a LoRA; writes a checkpoint")
    network_dim: int = option(64, "rank of the LoRA", least=1, of="full_finetune=False")
    network_alpha: float = option(
        0.0, "scale of the LoRA is alpha / dim (0: alpha = dim)", least=0, of="full_finetune=False"
    )
    network_dropout: float = option(
        0.0, "part of a layer's inner LoRA values that are dropped", least=0, of="full_finetune=False"
    )
    network_args: tuple[str, ...] = option(
        (),
        "name=value of conv_dim (0: none), conv_alpha, rank_dropout, module_dropout, target, include, exclude",
        of="full_finetune=False",
    )
    network_weights: str = option("", "a LoRA file to go on from", of="full_finetune=False")
    dim_from_weights: bool = option(False, "rank and alpha are those of network_weights", of="full_finetune=False")
    scale_weight_norms: float = option(
        0.0, "scale a LoRA layer down whose norm is above this (0: never)", least=0, of="full_finetune=False"
    )


@dataclass(frozen=True)
class Training:
    """Training"""

    train_batch_size: int = option(1, "samples a step and process", least=1)
    gradient_accumulation_steps: int = option(1, "batches whose gradients add up to one step", least=1)
    max_train_steps: int = option(1600, "optimizer steps in all", least=1)
    max_train_epochs: int = option(0, "epochs in all; overrides max_train_steps", least=0)
    seed: int = option(0, "seed of everything that is drawn", least=0)
    mixed_precision: str = option("no", "number format of the network", ("no", "fp16", "bf16"))
    gradient_checkpointing: bool = option(False, "recompute each block in the backward pass: less memory, more time")
    torch_compile: bool = option(
        False, "compile the network with torch.compile: minutes at the first step, then faster"
    )
    fsdp: bool = option(False, "shard the student over all processes of torchrun", of="full_finetune=True")
    optimizer_type: str = option(
        "AdamW",
        "of torch.optim; AdamW8bit, Lion8bit, ... (bitsandbytes); Prodigy (prodigyopt); or package.module.Class",
    )
    optimizer_args: tuple[str, ...] = option(
        (), "name=value for the optimizer, such as weight_decay=0.01 betas=0.9,0.999"
    )
    learning_rate: float = option(1e-4, "peak learning rate")
    lr_scheduler: str = option(
        "constant",
        "how the learning rate goes on after the warm-up",
        ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
    )
    lr_warmup_steps: float = option(0.0, "steps of linear warm-up; below 1: a part of all steps", least=0)
    lr_scheduler_num_cycles: int = option(1, "restarts", least=1, of="lr_scheduler=cosine_with_restarts")
    lr_scheduler_power: float = option(1.0, "exponent", of="lr_scheduler=polynomial")
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm (0: never)", least=0)


GROUPS: tuple[type, ...] = (Model, Data, Distillation, Network, Training, Output)


@dataclass(frozen=True)
class Options(Output, Training, Network, Distillation, Data, Model):
    """Every option of `python -m training.train`, with its default, as one flat record."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `resolution`."""
        width, _, height = self.resolution.partition(",")
        return int(width), int(height or width)

    @property
    def alpha(self) -> float:
        """`network_alpha`, which defaults to the rank."""
        return self.network_alpha or float(self.network_dim)


FIELDS = {f.name: f for f in dataclasses.fields(Options)}
TYPES = get_type_hints(Options)
AT_LEAST = {name: f.metadata["least"] for name, f in FIELDS.items() if f.metadata["least"] is not None}

# What kohya's trainers know and this one has no use for -> why.
PAIR = "the two ends of a distillation step must lie on one path of the teacher, which such noise leaves"
ALWAYS = "it is always so here: leave it out"
REFUSED = {
    **dict.fromkeys(("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale"), PAIR),
    **dict.fromkeys(("multires_noise_iterations", "multires_noise_discount"), PAIR),
    **dict.fromkeys(("ip_noise_gamma", "ip_noise_gamma_random_strength"), PAIR),
    **dict.fromkeys(("sdpa", "xformers", "mem_eff_attn"), "PyTorch's attention is always used: leave it out"),
    **dict.fromkeys(("network_train_unet_only", "network_module"), ALWAYS),
    **dict.fromkeys(("unet_lr", "text_encoder_lr"), "only the diffusion model is trained: use learning_rate"),
    **dict.fromkeys(("full_bf16", "full_fp16"), "use mixed_precision: a LoRA's own weights stay in float32"),
    "network_train_text_encoder_only": "only the diffusion model is distilled",
    "save_model_as": "only safetensors files are written: leave it out",
    "max_token_length": "ComfyUI's text encoders take captions of any length: leave it out",
    "color_aug": "the teacher's colours are what is distilled",
    "scale_v_pred_loss_like_noise_pred": "the loss compares states, whatever the network predicts",
    "prior_loss_weight": "there are no regularisation pictures in distillation",
    "reg_data_dir": "there are no regularisation pictures in distillation",
}
