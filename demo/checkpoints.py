"""Random weights in files of the true shape, so that a machine without any model can still prove the workflows.

    python -m demo.checkpoints FOLDER                 # all of them: 12 GB; what is there already is kept
    python -m demo.checkpoints FOLDER --only sd15     # 3 GB in half a minute

FOLDER is laid out as ComfyUI's `models`. Names and shapes are those of ComfyUI's own classes, built on the meta device:
nothing but one tensor at a time is ever in memory. The pictures that such files make are noise, of the right size.
"""

import argparse
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from training import host

Tensors = dict[str, Tensor]  # on the meta device: only names, shapes and types count
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
}
SD15 = UNET | {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "adm_in_channels": None,
}
SDXL = UNET | {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}
# SD3's layout with 6 blocks of 24, and CLIP-L as its only text encoder: 0.5 GB instead of 6. ComfyUI reads the number
# of blocks from the width, so the blocks are narrower too.
SD3_BLOCKS = 6
SD3 = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "depth": SD3_BLOCKS,
    "input_size": None,
    "adm_in_channels": 2048,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 4096, "out_features": 64 * SD3_BLOCKS},
    },
    "num_patches": 192**2,
    "pos_embed_max_size": 192,
    "pos_embed_scaling_factor": None,
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
ATTENTION = re.compile(r"lora_unet_(down_blocks|mid_block|up_blocks|joint_blocks)_.*attn")
RANK, LORA_UP = 4, 0.01  # a LoRA of this scale changes a picture a little


def diffusion_model(unet: dict) -> Any:
    """ComfyUI's model of this configuration, without any weights."""
    import comfy.model_detection

    found: Any = comfy.model_detection.model_config_from_unet_config(unet)
    found.set_inference_dtype(torch.float16, None)
    return found.get_model({}, device="meta")


def vae() -> Tensors:
    from comfy.ldm.models.autoencoder import AutoencoderKL

    return AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict()


def vae_of_sd3() -> Tensors:
    """16 channels, and no convolution between the latent and the networks."""
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    config, parts = VAE | {"z_channels": 16}, "comfy.ldm.modules.diffusionmodules.model."
    return AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": f"{parts}Encoder", "params": config},
        decoder_config={"target": f"{parts}Decoder", "params": config},
    ).state_dict()


def text_encoder(model: Any) -> Tensors:
    """What the architecture's own text encoder holds; of SD3, which runs with any of its three, CLIP-L alone."""
    present = {"text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": None}
    return model.model_config.clip_target(present).clip(device="meta", dtype=torch.float16).state_dict()


def checkpoint(unet: dict, make_vae: Callable[[], Tensors] = vae) -> Tensors:
    """Everything that CheckpointLoaderSimple wants, under the names that such files use."""
    model = diffusion_model(unet)
    return model.state_dict_for_saving(text_encoder(model), make_vae())


def controlnet() -> Tensors:
    """An SD 1.5 ControlNet."""
    import comfy.cldm.cldm
    import comfy.ops

    config = {
        key: value for key, value in diffusion_model(SD15).model_config.unet_config.items() if key != "out_channels"
    }
    net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, device="meta", operations=comfy.ops.disable_weight_init)
    return {f"control_model.{name}": tensor for name, tensor in net.state_dict().items()}


def lora(unet: dict) -> Tensors:
    """A kohya-format LoRA of all attention layers."""
    import comfy.lora

    model, layers = diffusion_model(unet), {}
    state = model.state_dict()
    for name, key in comfy.lora.model_lora_keys_unet(model, {}).items():
        if ATTENTION.match(name):
            rows, columns = state[cast(str, key)].shape
            layers[f"{name}.lora_down.weight"] = torch.empty(RANK, columns)
            layers[f"{name}.lora_up.weight"] = torch.empty(rows, RANK)
            layers[f"{name}.alpha"] = torch.empty(())
    return layers


def clip_vision() -> Tensors:
    """CLIP ViT-H, with which IP-Adapter looks at pictures."""
    import comfy.clip_model
    import comfy.ops

    config = json.loads(Path(comfy.clip_model.__file__).with_name("clip_vision_config_h.json").read_text())
    net = comfy.clip_model.CLIPVisionModelProjection(config, torch.float16, "meta", comfy.ops.disable_weight_init)
    return net.state_dict()


def ip_adapter() -> Tensors:
    """IP-Adapter for SD 1.5: four tokens of a picture, and a key and a value for each cross-attention."""
    width, tokens, picture = 768, 4, 1024
    names = {"proj.weight": (width * tokens, picture), "proj.bias": (width * tokens,)}
    names |= {"norm.weight": (width,), "norm.bias": (width,)}
    shapes = {f"image_proj.{name}": shape for name, shape in names.items()}
    down, up, middle = [320] * 2 + [640] * 2 + [1280] * 2, [1280] * 3 + [640] * 3 + [320] * 3, [1280]
    for i, channels in enumerate(down + up + middle):
        for part in "kv":
            shapes[f"ip_adapter.{2 * i + 1}.to_{part}_ip.weight"] = (channels, width)
    return {name: torch.empty(shape) for name, shape in shapes.items()}


# What the workflows ask for, by the base model they are made for: path below FOLDER -> what makes its tensors.
# Or the path of a file of the same content, which is then linked.
FILES: dict[str, dict[str, Callable[[], Tensors] | str]] = {
    "sd15": {
        "checkpoints/v1-5-pruned-emaonly-fp16.safetensors": lambda: checkpoint(SD15),
        "controlnet/control_v11f1p_sd15_depth_fp16.safetensors": controlnet,
        "controlnet/control_v11p_sd15_canny_fp16.safetensors": "controlnet/control_v11f1p_sd15_depth_fp16.safetensors",
        "loras/TCD-SD15-LoRA.safetensors": lambda: lora(SD15),
    },
    "ip_adapter": {
        "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": clip_vision,
        "ipadapter/ip-adapter_sd15.safetensors": ip_adapter,
    },
    "sd3": {
        "checkpoints/sd3_medium_incl_clips.safetensors": lambda: checkpoint(SD3, vae_of_sd3),
        "loras/sd3_tcd_lora.safetensors": lambda: lora(SD3),
    },
    "sdxl": {
        "checkpoints/sd_xl_base_1.0.safetensors": lambda: checkpoint(SDXL),
        "checkpoints/animagine-xl-3.1.safetensors": "checkpoints/sd_xl_base_1.0.safetensors",
        "loras/TCD-SDXL-LoRA.safetensors": lambda: lora(SDXL),
        "loras/Hyper-SDXL-1step-lora.safetensors": lambda: lora(SDXL),
        "loras/pcm_sdxl_smallcfg_4step_converted.safetensors": lambda: lora(SDXL),
        "loras/papercut.safetensors": lambda: lora(SDXL),
    },
}


def values(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Values that keep every layer's output about as large as its input, so that fp16 never overflows."""
    if not dtype.is_floating_point:
        return torch.arange(shape.numel()).reshape(shape)  # position_ids
    if name.endswith(".alpha"):
        return torch.full(shape, float(RANK))
    if len(shape) < 2:
        return torch.full(shape, float(name.endswith(".weight")))  # of a normalisation; or a bias
    scale = LORA_UP if name.endswith(".lora_up.weight") else (shape.numel() / shape[0]) ** -0.5
    return torch.empty(shape).uniform_(-scale, scale)


def header(tensors: Tensors) -> bytes:
    """What a safetensors file begins with: its own length, then name, type, shape and place of every tensor."""
    table, end = {}, 0
    for name, tensor in tensors.items():
        kind, size = ("F16", 2) if tensor.is_floating_point() else ("I64", 8)
        start, end = end, end + tensor.numel() * size
        table[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(path: Path, tensors: Tensors) -> None:
    """Write random values of these names and shapes, in fp16: all of them or nothing. Raises OSError on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(header(tensors))
            for name, tensor in tqdm(tensors.items(), desc=path.stem[:24], unit="tensor", leave=False):
                value = values(name, tensor.shape, tensor.dtype)
                file.write((value.half() if value.is_floating_point() else value).numpy().tobytes())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make(folder: Path, only: tuple[str, ...] = tuple(FILES)) -> list[Path]:
    """Write the files of these base models that are not there yet below `folder`; returns the paths of all.

    Raises ValueError for an unknown base model.
    """
    if unknown := set(only) - set(FILES):
        raise ValueError(f"unknown base model {sorted(unknown)}: choose from {', '.join(FILES)}")
    host.start()
    files = {folder / name: source for family in only for name, source in FILES[family].items()}
    for path, source in files.items():
        if path.exists():
            continue
        if isinstance(source, str):
            path.hardlink_to(folder / source)
        else:
            write(path, shapes(source))
    return list(files)


def shapes(source: Callable[[], Tensors]) -> Tensors:
    """What `source` makes, on the meta device whatever it does."""
    with torch.device("meta"):
        return source()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write, laid out as ComfyUI's models")
    parser.add_argument("--only", nargs="+", choices=FILES, default=tuple(FILES), help="the base models (default: all)")
    options = parser.parse_args()
    print("\n".join(map(str, make(options.folder, tuple(options.only)))))


if __name__ == "__main__":
    main()
