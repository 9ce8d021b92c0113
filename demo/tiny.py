"""The embedded tiny text-to-image model: Stable Diffusion, made of ComfyUI's own classes with few channels.

One safetensors file in the layout of an SD 1.x checkpoint (`model.diffusion_model.`, `first_stage_model.`,
`cond_stage_model.`); its metadata holds the vocabulary and the colours of the latent preview. `load` gives the
MODEL, CLIP and VAE that a checkpoint loader would give, so every stock node works on them.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any, ClassVar, cast

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.clip_model import CLIPTextModel
from safetensors import safe_open
from torch import nn

CHECKPOINT = Path(__file__).parent / "tiny.safetensors"
ARCHITECTURE = "tcd-tiny-v1"
PARTS = ("model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model.")
UNET = {
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "channel_mult": [1, 2, 2],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
    "num_heads": -1,
    "num_head_channels": 32,
    "context_dim": 128,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "legacy": False,
}
# Works on 2x2 patches of pixels (12 channels): a factor of 4 in the net, 8 in all, at a quarter of the cost.
VAE = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": 64,
        "in_channels": 12,
        "out_ch": 12,
        "ch": 32,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}
TEXT = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 512,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 16,
    "eos_token_id": 1,
}
START, END, UNKNOWN = 0, 1, 2
SPECIAL = ["<start>", "<end>", "<unknown>"]
ARTICLES = {"a", "an", "the"}


def words(text: str) -> list[str]:
    """Lower-case words of a prompt, without articles.

    >>> words("A Red heart, on-fire!")
    ['red', 'heart', 'on', 'fire']
    """
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in ARTICLES]


class WordTokenizer:
    """One token a word, in the shape that ComfyUI's SDTokenizer wants of a Hugging Face tokenizer."""

    def __init__(self, vocabulary: list[str]):
        self.vocabulary = {word: index for index, word in enumerate(vocabulary)}

    @classmethod
    def from_pretrained(cls, vocabulary: list[str]) -> "WordTokenizer":
        return cls(vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def token(self, word: str) -> int:
        """The word's index, or its singular's, or UNKNOWN with a warning."""
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in self.vocabulary:
                return self.vocabulary[form]
        logging.warning("the tiny model has never seen the word %r; it knows about 1,400, see demo/README.md", word)
        return UNKNOWN

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [START, *map(self.token, words(text)), END]}


class TinyTextModel(CLIPTextModel):
    """ComfyUI's CLIP text transformer with a vocabulary of its own size."""

    def __init__(self, config, dtype, device, operations):
        super().__init__(config, dtype, device, operations)
        self.text_model.embeddings.token_embedding = operations.Embedding(
            config["vocab_size"], config["hidden_size"], dtype=dtype, device=device
        )


def text_target(vocabulary: list[str]) -> comfy.supported_models_base.ClipTarget:
    """What ComfyUI's CLIP class is built from: a tokenizer class and a model class, closed over `vocabulary`."""

    class Tokens(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(
                vocabulary,
                max_length=TEXT["max_position_embeddings"],
                embedding_directory=embedding_directory,
                embedding_size=TEXT["hidden_size"],
                tokenizer_class=cast(Any, WordTokenizer),  # ComfyUI asks it for three methods only
                tokenizer_data=tokenizer_data or {},
            )

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device,
                max_length=TEXT["max_position_embeddings"],
                textmodel_json_config={**TEXT, "vocab_size": len(vocabulary)},
                dtype=dtype,
                model_class=TinyTextModel,
                special_tokens={"start": START, "end": END, "pad": END},
                return_projected_pooled=False,
                model_options=model_options or {},
            )

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=Tokens)

    class TextEncoder(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(device, dtype, model_options or {}, clip_model=cast(Any, Encoder))

    return comfy.supported_models_base.ClipTarget(Tokenizer, TextEncoder)


class TinyLatent(comfy.latent_formats.LatentFormat):
    """Four channels of zero mean and unit variance: the VAE's own 1x1 convolutions hold the normalisation."""

    scale_factor = 1.0
    latent_channels = 4


class TinyConfig(comfy.supported_models_base.BASE):
    """The entry that ComfyUI's list of supported models would have for this one."""

    unet_config = UNET
    unet_extra_config: ClassVar = {}
    latent_format = TinyLatent
    memory_usage_factor = 0.5


def build_unet_config(preview: dict | None = None) -> TinyConfig:
    """The model configuration, with the latent preview's colours when they are known."""
    config = TinyConfig(UNET)
    if preview:
        config.latent_format.latent_rgb_factors = preview["factors"]
        config.latent_format.latent_rgb_factors_bias = preview["bias"]
    return config


def widen_groups(net: nn.Module) -> nn.Module:
    """Eight channels in every group of every GroupNorm, in place.

    ComfyUI's classes fix 32 groups; in a net this narrow that is one or two channels a group, and such an instance
    norm erases what tells one colour from another.
    """
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = module.num_channels // 8
    return net


def finish_vae(vae: Any) -> None:
    """Put the 2x2 pixel patches around an AutoencoderKL, and widen its groups, in place."""
    widen_groups(vae)
    vae.encoder = nn.Sequential(nn.PixelUnshuffle(2), vae.encoder)
    vae.decoder = nn.Sequential(vae.decoder, nn.PixelShuffle(2))


def part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights below `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights and metadata of a tiny checkpoint. Raises ValueError for a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError:
        raise FileNotFoundError(f"the embedded model is missing: {path}") from None
    except Exception as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if metadata.get("modelspec.architecture") != ARCHITECTURE:
        found = metadata.get("modelspec.architecture", "none")
        raise ValueError(f"{path} is not a tiny TCD model: its architecture is {found!r}, not {ARCHITECTURE!r}")
    for prefix in PARTS:
        if not part(weights, prefix):
            raise ValueError(f"{path} is not whole: it has no weights below {prefix!r}")
    return weights, metadata


def load_unet(weights: dict, preview: dict, dtype: torch.dtype | None = None) -> comfy.model_patcher.ModelPatcher:
    """The MODEL; `dtype` overrides the one that ComfyUI would choose."""
    management = comfy.model_management
    config = build_unet_config(preview)
    device = management.get_torch_device()
    dtype = dtype or management.unet_dtype(supported_dtypes=list(config.supported_inference_dtypes))
    config.set_inference_dtype(
        dtype, management.unet_manual_cast(dtype, device, list(config.supported_inference_dtypes))
    )
    model = config.get_model(weights, "model.diffusion_model.", device=management.unet_offload_device())
    model.load_model_weights(dict(weights), "model.diffusion_model.")
    widen_groups(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=management.unet_offload_device())


def load_clip(weights: dict, vocabulary: list[str]) -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(text_target(vocabulary))
    clip.load_sd(part(weights, "cond_stage_model.transformer."))
    return clip


def load_vae(weights: dict) -> comfy.sd.VAE:
    vae = comfy.sd.VAE(sd=part(weights, "first_stage_model."), config={"params": VAE})
    finish_vae(vae.first_stage_model)
    return vae


def load(path: Path | str = CHECKPOINT, dtype: torch.dtype | None = None):
    """(MODEL, CLIP, VAE) of the tiny model, as ComfyUI's checkpoint loader would return them."""
    weights, metadata = read(Path(path))
    model = load_unet(weights, json.loads(metadata["tcd.preview"]), dtype)
    return model, load_clip(weights, json.loads(metadata["tcd.vocabulary"])), load_vae(weights)
