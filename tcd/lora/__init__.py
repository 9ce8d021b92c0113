"""Low-rank adaptation of a network in place: inject, switch, merge, extract; save, and load what any tool saved.

The adapter lives beside the network: a forward hook of each adapted layer adds the low-rank path, so the network's
own state dict stays clean, and switched off it computes bit for bit what it did before. One network thus plays teacher
(off), student (on) and target (on, without gradient). Adapters stack, and come off in any order.

    parametrisations.py, lycoris.py   LoRA, LoHa, LoKr: the factors of one layer and the difference they stand for
    ldm.py, names.py                  what other tools call layers and tensors
    adapter.py                        inject, attach, toggle, merge
    extract.py                        a LoRA out of two networks
    files.py                          save, read
    kinds.py, peft.py, reading.py     load
"""

from .adapter import Lora, adaptable, attach, inject, merge, toggle
from .extract import Extracted, extract
from .files import metadata_of, read, save, state_dict
from .kinds import PARAMETRISATIONS, layer_from, path_from
from .lycoris import LoHa, LoKr
from .names import PART, PREFIX, candidates, find, index, is_text_encoder, kohya_name
from .parametrisations import LoRA, LoraLayer, Parametrisation
from .reading import load, modules_of

__all__ = [
    "PARAMETRISATIONS",
    "PART",
    "PREFIX",
    "Extracted",
    "LoHa",
    "LoKr",
    "LoRA",
    "Lora",
    "LoraLayer",
    "Parametrisation",
    "adaptable",
    "attach",
    "candidates",
    "extract",
    "find",
    "index",
    "inject",
    "is_text_encoder",
    "kohya_name",
    "layer_from",
    "load",
    "merge",
    "metadata_of",
    "modules_of",
    "path_from",
    "read",
    "save",
    "state_dict",
    "toggle",
]
