"""Against ComfyUI's own loader and diffusers' own names: the tiny model's UNet with random weights."""

import copy
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from lora_nets import CORES, SHAPES, parts_of, weight_of
from safetensors.torch import save_file
from torch import nn

from tcd import lora
from tcd.lora import ldm
from training import host

pytestmark = [pytest.mark.host, pytest.mark.slow]

CORE = {"in_channels": 4, "out_channels": 4, "image_size": 16, "use_spatial_transformer": True, "legacy": False}
# ComfyUI's configurations of the networks, and diffusers' of the same
SD15 = CORE | {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "num_heads": 8,
    "context_dim": 768,
}
SDXL = CORE | {
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "num_head_channels": 64,
    "context_dim": 2048,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
UNEVEN = CORE | {
    "model_channels": 32,
    "num_res_blocks": [1, 3, 2, 1],
    "channel_mult": [1, 2, 2, 4],
    "transformer_depth": [0, 2, 2, 2, 0, 0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 2, 2, 2, 2, 0, 0, 0, 1, 1],
    "num_head_channels": 32,
    "context_dim": 64,
}
DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")


def theirs(width: list[int], layers: int | list[int], attention: list[bool], context: int, **more) -> dict:
    return {
        "block_out_channels": width,
        "layers_per_block": layers,
        "down_block_types": [DOWN[has] for has in attention],
        "up_block_types": [UP[has] for has in reversed(attention)],
        "cross_attention_dim": context,
        **more,
    }


DIFFUSERS = {
    "sd15": theirs([320, 640, 1280, 1280], 2, [True, True, True, False], 768),
    "sdxl": theirs(
        [320, 640, 1280],
        2,
        [False, True, True],
        2048,
        transformer_layers_per_block=[1, 2, 10],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
    "tiny": theirs([64, 128, 128], 1, [False, True, True], 128, use_linear_projection=True, attention_head_dim=4),
    "uneven": theirs(
        [32, 64, 64, 128], [1, 3, 2, 1], [False, True, False, True], 64, transformer_layers_per_block=[1, 2, 1, 1]
    ),
}


@cache
def tiny_config() -> dict:
    host.start()
    from demo.tiny import UNET

    return UNET


CONFIGS = {"sd15": lambda: SD15, "sdxl": lambda: SDXL, "tiny": tiny_config, "uneven": lambda: UNEVEN}
EVEN = ["sd15", "sdxl", "tiny"]  # ComfyUI's table takes it that all levels have as many blocks


def unet(config: dict, device: str = "cpu") -> nn.Module:
    """ComfyUI's network; on the device `meta` it has names and shapes alone."""
    host.start()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    copied = copy.deepcopy(config)  # building one empties its lists
    net = UNetModel(**copied, device=device, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    return net.requires_grad_(False)


@cache
def tiny_unet() -> nn.Module:
    net, generator = unet(tiny_config()), torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return net


class Model(nn.Module):
    """As much of ComfyUI's model as its loader asks for."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.diffusion_model = net
        self.model_config = SimpleNamespace(unet_config=tiny_config())


def patched(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What ComfyUI makes of the tiny UNet's weights with a LoRA file, by the layer's name; those that it changes."""
    import comfy.lora
    import comfy.lora_convert

    keys = comfy.lora.model_lora_keys_unet(Model(tiny_unet()), {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(state)), keys, log_missing=False)
    found = {}
    for key, patch in patches.items():
        name = key.removeprefix("diffusion_model.").removesuffix(".weight")
        weight = weight_of(tiny_unet(), name).clone()
        found[name] = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight, key)
    return found


def diffusers_names(config: dict) -> dict[str, str]:
    """diffusers' name of a layer -> the network's own, by ComfyUI's table."""
    import comfy.utils

    table = comfy.utils.unet_to_diffusers(copy.deepcopy(config))
    return {key.removesuffix(".weight"): own.removesuffix(".weight") for key, own in table.items() if "weight" in key}


def check_merged(path, wanted: dict[str, torch.Tensor]) -> None:
    """Merged, our weights are `wanted`, and the others are what they were."""
    net = copy.deepcopy(tiny_unet())
    adapter = lora.load(path, net)
    assert set(adapter.names.values()) == wanted.keys()
    lora.merge(net, adapter)
    for name, layer in lora.adaptable(net).items():
        before = weight_of(tiny_unet(), name)
        if name in wanted:
            assert (wanted[name] - before).abs().max() > 0.01
            torch.testing.assert_close(layer.weight.detach(), wanted[name], rtol=0, atol=1e-5)
        else:
            assert torch.equal(layer.weight, before)


# --- parametrisations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
def test_comfyui_patches_the_same_weights(tmp_path, monkeypatch, kind):
    """Of cores, ComfyUI takes those of kernels alone; LoKr's only where torch.kron takes what einsum gives."""
    layers = lora.adaptable(tiny_unet())
    if kind in CORES:
        layers = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
        kron = torch.kron
        monkeypatch.setattr(torch, "kron", lambda one, two: kron(one.contiguous(), two.contiguous()))
    state = {
        f"{lora.kohya_name(name)}.{part}": tensor
        for seed, (name, layer) in enumerate(layers.items())
        for part, tensor in parts_of(kind, layer.weight.shape, rank=4, alpha=2.5, seed=seed).items()
    }
    save_file(state, tmp_path / "a")
    wanted = patched(state)
    monkeypatch.undo()
    assert wanted.keys() == layers.keys()
    check_merged(tmp_path / "a", wanted)


# --- namings ----------------------------------------------------------------------------------------------------------


def parts_named(module: str, down: str, up: str, alpha: bool = True):
    def named(parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        own = {f"{module}.{down}": parts["lora_down.weight"], f"{module}.{up}": parts["lora_up.weight"]}
        return own | ({f"{module}.alpha": parts["alpha"]} if alpha else {})

    return named


def underscored(name: str) -> str:
    return name.replace(".", "_")


def processor(name: str):
    """diffusers' old names of the attention's layers; the others have none, or their own."""
    before, _, last = name.rpartition(".to_")
    if not before:
        return parts_named(f"unet.{name}", "lora.down.weight", "lora.up.weight")
    word = f"unet.{before}.processor.to_{last.removesuffix('.0')}"
    return lambda parts: {f"{word}_lora.{way}.weight": parts[f"lora_{way}.weight"] for way in ("down", "up")}


# Naming -> (whether ComfyUI knows it, own name, diffusers' name -> keys of a LoRA's parts)
NAMINGS = {
    "kohya": (True, lambda ours, _: parts_named(lora.kohya_name(ours), "lora_down.weight", "lora_up.weight")),
    "kohya-diffusers": (
        True,
        lambda _, theirs: parts_named(f"lora_unet_{underscored(theirs)}", "lora_down.weight", "lora_up.weight"),
    ),
    "lycoris-diffusers": (
        True,
        lambda _, theirs: parts_named(f"lycoris_{underscored(theirs)}", "lora_down.weight", "lora_up.weight"),
    ),
    "lycoris": (
        False,
        lambda ours, _: parts_named(f"lycoris_{underscored(ours)}", "lora_down.weight", "lora_up.weight"),
    ),
    "comfyui": (True, lambda ours, _: parts_named(f"diffusion_model.{ours}", "lora_A.weight", "lora_B.weight")),
    "diffusers-processor": (True, lambda _, theirs: processor(theirs)),
    "diffusers-old": (False, lambda _, theirs: parts_named(f"unet.{theirs}", "lora.down.weight", "lora.up.weight")),
    "diffusers": (False, lambda _, theirs: parts_named(f"unet.{theirs}", "lora_A.weight", "lora_B.weight")),
    "peft": (
        False,
        lambda _, theirs: parts_named(f"base_model.model.{theirs}", "lora_A.weight", "lora_B.weight", alpha=False),
    ),
    "peft-named": (
        False,
        lambda ours, _: parts_named(
            f"base_model.model.{ours}", "lora_A.default.weight", "lora_B.default.weight", alpha=False
        ),
    ),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_gives_the_weights_that_comfyui_patches(tmp_path, naming):
    """What ComfyUI does not know by this name it gets in kohya's words."""
    known, named = NAMINGS[naming]
    table = {ours: theirs for theirs, ours in diffusers_names(tiny_config()).items()}
    state, kohya = {}, {}
    for seed, (ours, layer) in enumerate(lora.adaptable(tiny_unet()).items()):
        parts = parts_of("lora", layer.weight.shape, rank=4, alpha=4.0, seed=seed)
        state |= named(ours, table[ours])(parts)
        kohya |= NAMINGS["kohya"][1](ours, "")(parts)
    save_file(state, tmp_path / "a")
    wanted = patched(state if known else kohya)
    assert wanted.keys() == lora.adaptable(tiny_unet()).keys()
    check_merged(tmp_path / "a", wanted)


@pytest.mark.parametrize("which", EVEN)
def test_diffusers_names_are_those_of_comfyui_s_table(which):
    config = CONFIGS[which]()
    net = unet(config, "meta")
    layers = lora.adaptable(net)
    wanted = {key: own for key, own in diffusers_names(config).items() if own in layers}
    found = ldm.diffusers_names(name for name, _ in net.named_modules())
    assert {key: own for key, own in found.items() if own in layers} == wanted
    assert set(wanted.values()) == layers.keys()


@pytest.mark.parametrize("which", DIFFUSERS)
def test_diffusers_own_network_has_these_names_and_shapes(which):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is a reference for the tests, not a dependency")
    net = unet(CONFIGS[which](), "meta")
    with torch.device("meta"):
        other = lora.adaptable(diffusers.UNet2DConditionModel(**DIFFUSERS[which]))
    found = ldm.diffusers_names(name for name, _ in net.named_modules())
    ours = {key: layer for key, layer in lora.adaptable(net).items() if key in set(found.values())}
    shapes = {key: ours[own].weight.shape for key, own in found.items() if own in ours}
    assert {key: layer.weight.shape for key, layer in other.items()}.items() <= shapes.items()
    assert {found[key] for key in other} == lora.adaptable(net).keys()


@pytest.mark.parametrize("which", CONFIGS)
def test_a_file_in_diffusers_names_is_read_by_comfyui_and_by_us(tmp_path, which):
    """On the device `meta` for the true networks: of their LoRAs only names and shapes are looked at."""
    net = unet(CONFIGS[which](), "meta")
    import comfy.lora  # which is found once a host was started

    adapter = lora.inject(net, 1)
    keys = {f"lora_unet_{underscored(key)}" for key in diffusers_names(CONFIGS[which]())} if which in EVEN else None
    given = lora.state_dict(adapter.to_empty(device="cpu"), names="diffusers", net=net)
    state = {key: torch.zeros_like(tensor) for key, tensor in given.items()}
    modules = {key.partition(".")[0] for key in state}
    assert len(modules) == len(lora.adaptable(net))
    assert not any("input_blocks" in module or "output_blocks" in module for module in modules)
    adapter.remove()
    save_file(state, tmp_path / "a")
    loaded = lora.load(tmp_path / "a", net)
    assert set(loaded.names.values()) == lora.adaptable(net).keys()
    loaded.remove()
    if keys is not None:
        assert modules <= keys
        model = Model(net)
        model.model_config = SimpleNamespace(unet_config=copy.deepcopy(CONFIGS[which]()))
        known = comfy.lora.model_lora_keys_unet(model, {})
        patches = comfy.lora.load_lora(dict(state), known, log_missing=False)
        assert {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in patches} == lora.adaptable(
            net
        ).keys()
