"""The two names of a UNet's modules: LDM's, which ComfyUI's networks keep, and diffusers'. Names only, no tensors.

LDM counts blocks from end to end (`input_blocks.4.1`), diffusers by level and kind (`down_blocks.1.attentions.0`). What
the blocks hold tells which is which, so the second names follow from the first, for any number of levels and blocks.
"""

import re
from collections.abc import Iterable, Iterator

# A side, the numbers of a module in its lists, the first word inside that module, and the rest.
LDM = re.compile(r"(input_blocks|middle_block|output_blocks)((?:\.\d+)+)\.([a-z]\w*)((?:\.\w+)*)")
SIDES = {"input_blocks": "down_blocks.{level}", "middle_block": "mid_block", "output_blocks": "up_blocks.{level}"}
KINDS = {
    "in_layers": "resnets",
    "transformer_blocks": "attentions",
    "op": "downsamplers",
    "conv": "upsamplers",
}  # a word that only modules of one kind have inside
INSIDE = {
    "resnets": {
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    },
    "downsamplers": {"op": "conv"},
    "upsamplers": {"conv": "conv"},
}  # of attentions: the same names in both
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def kinds(names: Iterable[str]) -> dict[tuple[str, tuple[int, ...]], str]:
    """(side, numbers) of each module of the block lists -> its kind; in the order of the network.

    >>> kinds(["input_blocks.10.0.op", "input_blocks.2.1.proj_in", "input_blocks.2.1.transformer_blocks.0.norm1"])
    {('input_blocks', (2, 1)): 'attentions', ('input_blocks', (10, 0)): 'downsamplers'}
    """
    matches = filter(None, map(LDM.fullmatch, names))
    found = {(m[1], tuple(map(int, m[2][1:].split(".")))): KINDS[m[3]] for m in matches if m[3] in KINDS}
    return dict(sorted(found.items()))


def places(modules: dict[tuple[str, tuple[int, ...]], str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """LDM's name of each module of `kinds` -> (diffusers' name, kind).

    A sampler is the last of its level. An attention has the number of the resnet before it: in diffusers all resnets
    of a level have one, or none has.
    """
    before, level, resnet = "", 0, -1
    for (side, numbers), kind in modules.items():
        if side != before:
            before, level, resnet = side, 0, -1
        resnet += kind == "resnets"
        sampler = kind.endswith("samplers")
        theirs = f"{SIDES[side].format(level=level)}.{kind}.{0 if sampler else resnet}"
        yield ".".join([side, *map(str, numbers)]), (theirs, kind)
        if sampler:
            level, resnet = level + 1, -1


def diffusers_names(names: Iterable[str]) -> dict[str, str]:
    """diffusers' name -> LDM's, of those modules that have one; none where there are no `input_blocks`.

    >>> diffusers_names(["input_blocks.0.0", "input_blocks.1.0.in_layers.2"])
    {'conv_in': 'input_blocks.0.0', 'down_blocks.0.resnets.0.conv1': 'input_blocks.1.0.in_layers.2'}
    """
    ours = list(names)
    if not any(name.startswith("input_blocks.") for name in ours):
        return {}
    known = dict(places(kinds(ours)))
    found = {end: name for end, name in ENDS.items() if name in ours}
    for match in filter(None, map(LDM.fullmatch, ours)):
        module, inside = match[1] + match[2], match[3] + match[4]
        theirs, kind = known.get(module, ("", ""))
        parts = INSIDE.get(kind)
        if kind and (parts is None or inside in parts):
            found[f"{theirs}.{inside if parts is None else parts[inside]}"] = match[0]
    return found
