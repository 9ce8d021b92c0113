"""LoRA files of every kind: sound, odd, lying and damaged ones."""

import json
from random import Random

import torch
from fuzz.mutations import damaged, truncated
from fuzz.safetensors_files import header_of, lying, packed
from lora_nets import CORES, SHAPES, parts_of
from torch import Tensor

import tcd
from tcd import embed

SPECIAL = (float("nan"), float("inf"), float("-inf"), 65504.0, 3.4e38, 0.0)
METADATA = {"tcd.method": "tcd", "tcd.tcf": "1", "tcd.gamma": "0.3", "ss_network_dim": "2"}


PEFT = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}


def lora_of(layers: dict[str, torch.Size], chance: Random) -> dict[str, Tensor]:
    """Tensors of some of the layers, of any kind that there is or as PEFT has them; sometimes the embedding of s."""
    state: dict[str, Tensor] = {}
    peft = chance.random() < 0.2
    for name in chance.sample(sorted(layers), min(3, len(layers))):
        shape = layers[name]
        kinds = ["lora"] if peft else sorted(SHAPES.keys() - (CORES if len(shape) < 4 else set()))
        parts = parts_of(chance.choice(kinds), shape, chance.choice((1, 2, 4)), seed=chance.randrange(99))
        if peft:
            state |= {f"base_model.model.{name}.{theirs}": parts[ours] for ours, theirs in PEFT.items()}
        else:
            state |= {f"{tcd.lora.names.kohya_name(name)}.{part}": tensor for part, tensor in parts.items()}
    if chance.random() < 0.1:
        state |= embed.to_tensors(tcd.TargetTime(8, 6))
    return state


def odd_value(tensor: Tensor, chance: Random) -> Tensor:
    changed = tensor.clone().flatten()
    if changed.numel() and changed.is_floating_point():
        changed[chance.randrange(len(changed))] = chance.choice(SPECIAL)
    return changed.reshape(tensor.shape)


TEXTS = ("", "nan", "-1", "s+", "1e999", "x" * 4000, "{}", "[1]", "[" * 100_000, "\0", "9" * 5000)
# What PEFT may have said, of which a value may be of any type and a pattern take forever.
SETTINGS = (
    {"unet.lora_alpha": 4},
    {"unet.lora_alpha": {"a": 1}},
    {"unet.lora_alpha": 10**400},
    {"unet.r": 3, "unet.lora_alpha": 4},
    {"unet.alpha_pattern": {"stem": 4, "(": 1}},
    {"unet.alpha_pattern": {"([a-z_.0-9]+)+!": 1}},
    {"unet.alpha_pattern": [1]},
    {"unet.peft_type": ["LOHA"]},
    {"unet.peft_type": None},
)
# What may be odd about one tensor.
ODD = {
    "value": odd_value,
    "dtype": lambda tensor, chance: tensor.to(chance.choice((torch.int64, torch.uint8, torch.bool, torch.float64))),
    "half": lambda tensor, chance: tensor.to(chance.choice((torch.float16, torch.bfloat16))),
    "shape": lambda tensor, chance: tensor[None] if chance.random() < 0.5 else tensor.flatten(),
    "turned": lambda tensor, chance: tensor.T if tensor.ndim == 2 else tensor.flip(0) if tensor.ndim else tensor[None],
    "empty": lambda tensor, chance: torch.zeros([0, *tensor.shape[1:]] if chance.random() < 0.5 else [2**40, 0]),
    "wider": lambda tensor, chance: torch.cat([tensor, tensor]) if tensor.ndim else tensor.repeat(2),
}
# Parts of other kinds of adapters, and keys of none.
STRANGE = (
    *("dora_scale", "lora_magnitude_vector", "diff", "diff_b", "w_norm", "b_norm", "set_weight"),
    *("a1.weight", "b2.weight", "oft_blocks", "oft_diag", "boft.x", "rescale", "lora_down.weight", "lora_A.weight"),
    *("lora_mid.weight", "lora.up.weight", "weight", "lora_B.default.weight", "hada_t1", "lokr_w1"),
)


def odd(state: dict[str, Tensor], chance: Random) -> dict[str, Tensor]:
    """The same with something odd about it, which the format allows."""
    state, key = dict(state), chance.choice(sorted(state))
    what = chance.choice((*ODD, "gone", "strange", "renamed", "other module"))
    if what in ODD:
        state[key] = ODD[what](state[key], chance)
    elif what == "gone":
        del state[key]
    elif what == "strange":
        state[f"{key.partition('.')[0]}.{chance.choice(STRANGE)}"] = state[chance.choice(sorted(state))]
    elif what == "renamed":
        names = ("unet.", "base_model.model.", "lora_te_", "diffusion_model.", "lora_unet__", "text_model.", "")
        state[chance.choice(names) + key.removeprefix("lora_unet_")] = state.pop(key)
    else:
        state[f"{chance.choice(('nowhere', 'a' * 300))}.{key.partition('.')[2]}"] = state[key]
    return state


def metadata_of(chance: Random) -> dict[str, str]:
    """As our trainer writes it, mostly; with one odd value otherwise."""
    if chance.random() < 0.7:
        return METADATA
    key = chance.choice((*METADATA, "lora_adapter_metadata", "lora_adapter_metadata", "lora_alpha"))
    return METADATA | {key: chance.choice((*TEXTS, *map(json.dumps, SETTINGS)))}


def file_of(layers: dict[str, torch.Size], chance: Random) -> bytes:
    """One file: sound, odd, lying or damaged."""
    state = lora_of(layers, chance)
    kind = chance.choice(("sound", "odd", "odd", "odd", "lying", "lying", "truncated", "damaged", "damaged"))
    if kind == "lying":
        return lying(state, METADATA, chance)
    for _ in range(chance.choice((1, 1, 2)) if kind == "odd" else 0):
        state = odd(state, chance) if state else state
    header, data = header_of(state, metadata_of(chance))
    content = packed(json.dumps(header), data)
    return {"truncated": truncated, "damaged": damaged}.get(kind, lambda content, chance: content)(content, chance)
