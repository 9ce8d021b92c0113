"""Every option changes what is trained, or is shown elsewhere to do what it says: none is parsed and ignored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from host_process import ROOT
from PIL import Image, ImageDraw
from safetensors.torch import load_file

import tcd
from training import host, options, train

pytestmark = [pytest.mark.host, pytest.mark.slow]

CAPTIONS = ("red, round, old", "green, flat, new", "blue, thin, odd", "grey, long, big")
SIZES = ((64, 64), (96, 64), (64, 96), (128, 64))

# Option -> (what else is set in both runs, its value in the second run only). Both are of two steps.
LEARNS: dict[str, tuple[dict[str, Any], Any]] = {
    "checkpoint_loader": ({}, "small_models:sd2"),
    "v_parameterization": ({}, True),
    "zero_terminal_snr": ({"v_parameterization": True}, True),
    "discrete_flow_shift": ({"checkpoint_loader": "small_models:sd3"}, 2.0),
    "guidance_scale": ({"checkpoint_loader": "small_models:flux"}, 1.0),
    "clip_skip": ({}, 2),
    "base_weights": ({}, ("LORA",)),
    "base_weights_multiplier": ({"base_weights": ("LORA",)}, (0.5,)),
    "caption_extension": ({}, ".caption"),
    "resolution": ({}, "32"),
    "enable_bucket": ({"resolution": "320"}, True),
    "min_bucket_reso": ({"enable_bucket": True, "resolution": "320"}, 64),
    "max_bucket_reso": ({"enable_bucket": True, "bucket_reso_steps": 8, "min_bucket_reso": 8}, 64),
    "bucket_reso_steps": ({"enable_bucket": True, "min_bucket_reso": 8}, 8),
    "bucket_no_upscale": ({"enable_bucket": True, "resolution": "256", "min_bucket_reso": 8}, True),
    "random_crop": ({"cache_latents": False, "resolution": "32"}, True),
    "flip_aug": ({}, True),
    "shuffle_caption": ({"cache_text_encoder_outputs": False}, True),
    "caption_separator": ({"cache_text_encoder_outputs": False, "shuffle_caption": True}, " "),
    "keep_tokens": ({"cache_text_encoder_outputs": False, "shuffle_caption": True}, 2),
    "caption_dropout_rate": ({}, 1.0),
    "caption_dropout_every_n_epochs": ({}, 1),
    "caption_tag_dropout_rate": ({"cache_text_encoder_outputs": False}, 0.7),
    "method": ({}, "cm"),
    "tcf": ({}, "2"),
    "ends": ({}, 0),
    "skip_steps": ({}, 50),
    "intervals": ({"method": "lcm"}, 25),
    "solver": ({}, "heun"),
    "guidance_min": ({}, 13.0),
    "guidance_max": ({}, 3.0),
    "uncond": ({}, "zeros"),
    "loss_type": ({}, "huber"),
    "huber_c": ({"loss_type": "huber"}, 1.0),
    "loss_weighting": ({}, "min_snr"),
    "min_snr_gamma": ({"loss_weighting": "min_snr"}, 0.01),
    "min_timestep": ({}, 900),
    "max_timestep": ({}, 100),
    "ema_decay": ({}, 0.9),
    "full_finetune": ({"checkpoint_loader": "demo.tiny:load"}, True),  # whose file it can write anew
    "network_dim": ({}, 3),
    "network_alpha": ({}, 1.0),
    "network_dropout": ({}, 0.5),
    "network_args": ({}, ("conv_dim=0",)),
    "network_weights": ({}, "LORA"),
    "scale_weight_norms": ({"learning_rate": 1e-2}, 1e-3),
    "train_batch_size": ({}, 3),
    "gradient_accumulation_steps": ({}, 2),
    "max_train_steps": ({}, 3),
    "max_train_epochs": ({}, 2),
    "seed": ({}, 1),
    "mixed_precision": ({}, "bf16"),
    "optimizer_type": ({}, "SGD"),
    "optimizer_args": ({}, ("weight_decay=0.5",)),
    "learning_rate": ({}, 1e-2),
    "lr_scheduler": ({}, "linear"),
    "lr_warmup_steps": ({}, 2.0),
    "lr_scheduler_num_cycles": ({"lr_scheduler": "cosine_with_restarts", "max_train_steps": 3}, 2),
    "lr_scheduler_power": ({"lr_scheduler": "polynomial"}, 3.0),
    "max_grad_norm": ({"optimizer_type": "SGD"}, 1e-6),
    "train_data_dir": ({}, "OTHER"),
}

# Option -> the file of tests that shows what it does.
ELSEWHERE = {
    "pretrained_model_name_or_path": "families/test_loading.py",
    "vae": "families/test_loading.py",
    "v2": "families/test_teacher.py",
    "text_encoders": "families/test_loading.py",
    "dataset_config": "data/test_config.py",
    "prompts": "test_prompts.py",
    "latents_per_prompt": "data/test_prompts.py",
    "teacher_steps": "data/test_prompts.py",
    "teacher_solver": "data/test_prompts.py",
    "teacher_guidance": "data/test_prompts.py",
    "cache_latents": "data/test_encode.py",
    "cache_latents_to_disk": "data/test_encode.py",
    "vae_batch_size": "data/test_encode.py",
    "cache_text_encoder_outputs": "data/test_texts.py",
    "cache_text_encoder_outputs_to_disk": "data/test_texts.py",
    "max_data_loader_n_workers": "data/test_survey.py",
    "bad_data": "data/test_survey.py",
    "dim_from_weights": "test_adapters.py",
    "gradient_checkpointing": "families/test_families.py",
    "torch_compile": "test_train.py",
    "fsdp": "test_processes.py",
    "resume": "test_resume.py",
    "output_dir": "test_full_disk.py",
    **dict.fromkeys(("output_name", "save_precision", "no_metadata", "training_comment"), "test_save.py"),
    **dict.fromkeys(("save_every_n_steps", "save_every_n_epochs", "save_last_n_steps"), "test_train.py"),
    **dict.fromkeys(("save_last_n_epochs", "save_state", "save_state_on_train_end", "dry_run"), "test_train.py"),
    **dict.fromkeys(("sample_prompts", "sample_steps", "sample_gamma", "ode_error_steps"), "watch/test_preview.py"),
    **dict.fromkeys(("sample_every_n_steps", "sample_every_n_epochs", "sample_at_first"), "test_train.py"),
    "ode_error_every_n_steps": "test_train.py",
    **dict.fromkeys(("log_with", "logging_dir", "log_every_n_steps"), "watch/test_log.py"),
}


def draw(folder: Path, seed: int) -> None:
    """Four pictures of different shapes, none of them symmetric, with two captions each."""
    folder.mkdir(parents=True)
    for i, (caption, size) in enumerate(zip(CAPTIONS, SIZES, strict=True)):
        picture = Image.new("RGB", size, caption.split(",")[0])
        ImageDraw.Draw(picture).rectangle((4, 8, 20, 30), fill=(80 * i, 40, 200 - seed))
        picture.save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(caption, encoding="utf-8")
        (folder / f"{i}.caption").write_text(f"another {i}", encoding="utf-8")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folder of pictures, another, and a LoRA file that does something."""
    folder = tmp_path_factory.mktemp("options")
    draw(folder / "data" / "1_all", 0)
    draw(folder / "other" / "1_all", 100)
    models = host.load(ROOT / "demo" / "tiny.safetensors", "small_models:sd15")
    torch.manual_seed(1)
    adapter = tcd.lora.inject(models.unet, 2)
    with torch.no_grad():
        for path in adapter.paths.values():
            torch.nn.init.normal_(path.factors["up"], std=0.2)
    tcd.lora.save(folder / "lora.safetensors", adapter)
    return folder


DEFAULTS = {
    "checkpoint_loader": "small_models:sd15",
    "resolution": "64",
    "network_dim": 2,
    "train_batch_size": 2,
    "max_train_steps": 2,
    "learning_rate": 1e-3,
    "save_precision": "float",
}


def trained(places, output, **named):
    """The tensors that a run with these options writes."""
    files = {"LORA": str(places / "lora.safetensors"), "OTHER": str(places / "other")}
    values: dict[str, Any] = DEFAULTS | {"train_data_dir": str(places / "data"), "output_dir": str(output)} | named
    values |= {"pretrained_model_name_or_path": str(ROOT / "demo" / "tiny.safetensors")}
    if values.get("full_finetune"):
        del values["network_dim"]
    for name, value in values.items():
        if isinstance(value, tuple):
            values[name] = tuple(files.get(item, item) for item in value)
        elif isinstance(value, str):
            values[name] = files.get(value, value)
    return load_file(train.train(options.check(options.Options(**values))))


@pytest.fixture(scope="module")
def runs(places, tmp_path_factory):
    """What a run with some options writes, each made once."""
    made = {}

    def run(named):
        key = repr(sorted(named.items()))
        if key not in made:
            made[key] = trained(places, tmp_path_factory.mktemp("run"), **named)
        return made[key]

    return run


@pytest.mark.parametrize("name", LEARNS)
def test_an_option_changes_what_is_learned(runs, name):
    base, value = LEARNS[name]
    one, other = runs(base), runs(base | {name: value})
    same = one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert not same
    assert all(bool(tensor.isfinite().all()) for tensor in other.values())


def test_the_same_options_learn_the_same(places, tmp_path, runs):
    again, before = trained(places, tmp_path), runs({})
    assert again.keys() == before.keys()
    assert all(torch.equal(again[key], before[key]) for key in again)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_other_options_have_tests_of_their_own(name):
    assert name in (Path(__file__).parent / ELSEWHERE[name]).read_text(encoding="utf-8")


def test_no_option_is_left_out():
    assert LEARNS.keys() | ELSEWHERE.keys() == options.FIELDS.keys()
    assert not LEARNS.keys() & ELSEWHERE.keys()
