"""What other tools call the layers of a network and the tensors of a LoRA. Names only, no tensors.

A key of a LoRA file is a module and a part: `lora_unet_out_2` and `lora_down.weight`. Modules are compared in kohya's
form, so a tool's dots and underscores do not matter.
"""

import re
from collections.abc import Iterable, Iterator

from .ldm import diffusers_names

PREFIX = "lora_unet_"
EXTRA = ("tcd_target_time.",)  # how keys begin that are no LoRA, but go with one: the embedding of s of TCF(S+)

# Where the part begins; in diffusers' old attention processors with an underscore: `to_q_lora.down.weight`.
PART = re.compile(
    r"(?:\.|_(?=lora\.(?:down|up)\.))"
    r"((?:lora|hada|lokr|oft|boft|dora)[._].+|alpha|diff(?:_b)?|[wb]_norm|[ab][12]\.weight|(?:set|reshape)_weight|rescale)$"
)
# PEFT's and diffusers' parts -> kohya's. PEFT may put an adapter's name in between: `lora_A.default.weight`.
SPELLINGS = {
    re.compile(r"lora_A(\.\w+)?\.weight|lora(_linear_layer)?\.down\.weight"): "lora_down.weight",
    re.compile(r"lora_B(\.\w+)?\.weight|lora(_linear_layer)?\.up\.weight"): "lora_up.weight",
}
PROCESSOR = re.compile(r"\.processor(\.to_\w+)$")
BEFORE = re.compile(r"base_model\.model\.|unet\.|transformer\.|(model\.)?diffusion_model\.|lora_unet_|lycoris_")
TEXT_ENCODER = re.compile(r"lora_te\d*_|(base_model\.model\.)?(text_encoders?(_\d)?|text_model)\.")
PEFT = re.compile(r"base_model\.model\.|.*\.lora_A\.")


def kohya_name(name: str) -> str:
    """Key of a module in a LoRA file.

    >>> kohya_name("input_blocks.1.0.in_layers.2")
    'lora_unet_input_blocks_1_0_in_layers_2'
    """
    return PREFIX + name.replace(".", "_")


def split(key: str) -> tuple[str, str]:
    """(module, part) of a key, the part as kohya or LyCORIS call it. Raises ValueError for a key of something else.

    >>> split("unet.mid_block.attentions.0.proj_in.lora_A.default.weight")
    ('unet.mid_block.attentions.0.proj_in', 'lora_down.weight')
    >>> split("unet.x.attn1.processor.to_out_lora.up.weight")
    ('unet.x.attn1.to_out.0', 'lora_up.weight')
    """
    if (match := PART.search(key)) is None:
        raise ValueError(f"{key} is no LoRA key of kohya, LyCORIS, PEFT or diffusers")
    part = next((ours for theirs, ours in SPELLINGS.items() if theirs.fullmatch(match[1])), match[1])
    module = key[: match.start()]
    # A processor has one way out; the attention that it stands for has a list of it: Linear and Dropout.
    return PROCESSOR.sub(lambda layer: layer[1] + ".0" * (layer[1] == ".to_out"), module), part


def is_text_encoder(module: str) -> bool:
    """Whether a module of a file belongs to a text encoder.

    >>> is_text_encoder("lora_te1_text_model_encoder_layers_0_mlp_fc1"), is_text_encoder("text_encoder_2.x")
    (True, True)
    """
    return TEXT_ENCODER.match(module) is not None


def is_peft(key: str) -> bool:
    """Whether a key is PEFT's, which keeps alpha beside the tensors.

    >>> is_peft("unet.x.lora_A.weight"), is_peft("unet.x.lora.down.weight")
    (True, False)
    """
    return PEFT.match(key) is not None


def candidates(module: str) -> Iterator[str]:
    """A file's name of a module as it is, and without what tools put before it, layer by layer.

    >>> list(candidates("base_model.model.unet.conv_in"))
    ['base_model.model.unet.conv_in', 'unet.conv_in', 'conv_in']
    """
    yield module
    while match := BEFORE.match(module):
        module = module[match.end() :]
        yield module


def index(names: Iterable[str], layers: Iterable[str]) -> dict[str, str]:
    """Every name, in kohya's form, that a file may have for one of `layers` -> the layer's own name.

    `names` are those of all modules of the network: its structure tells what diffusers would call them. Own names come
    first. Raises ValueError for two layers that are the same in kohya's form.
    """
    own: dict[str, str] = {}
    for name in layers:
        if (other := own.setdefault(kohya_name(name), name)) != name:
            raise ValueError(f"{other} and {name} have the same name in a LoRA file: {kohya_name(name)}")
    known = set(own.values())
    theirs = {kohya_name(theirs): ours for theirs, ours in diffusers_names(names).items() if ours in known}
    return theirs | own


def diffusers_keys(names: Iterable[str]) -> dict[str, str]:
    """Own name of each module that diffusers has -> its key in a LoRA file by diffusers' naming.

    `names` are those of all modules of the network.

    >>> diffusers_keys(["input_blocks.0.0", "input_blocks.1.0.in_layers.2", "out.0"])["input_blocks.1.0.in_layers.2"]
    'lora_unet_down_blocks_0_resnets_0_conv1'
    """
    return {ours: kohya_name(theirs) for theirs, ours in diffusers_names(names).items()}


def find(module: str, known: dict[str, str]) -> str | None:
    """The layer, of those that `index` knows, that a file's module stands for."""
    return next((known[key] for key in map(kohya_name, candidates(module)) if key in known), None)
