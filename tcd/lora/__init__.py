"""Low-rank adaptation of a network in place: inject, switch, merge, extract; save, and load what any tool saved.

The adapter lives beside the network: the forward of each adapted layer adds the low-rank path, so the network's
own state dict stays clean, and switched off it computes bit for bit what it did before. One network thus plays teacher
(off), student (on) and target (on, without gradient). Adapters stack, and come off in any order.

    parametrisations.py, lycoris.py   LoRA, LoHa, LoKr: the factors of one layer and the difference they stand for
    ldm.py, names.py                  what other tools call layers and tensors
    adapter.py, merged.py             attach, toggle, merge; how an adapted layer is computed
    fresh.py, dropout.py              inject; dropout and norms of what is trained
    extract.py                        a LoRA out of two networks
    files.py                          save, read
    kinds.py, peft.py, reading.py     load
"""

from .adapter import Lora, adaptable, attach, merge, toggle
from .dropout import Dropout
from .extract import Extracted, extract
from .files import metadata_of, read, save, state_dict
from .fresh import inject, scale_norms, set_dropout
from .kinds import PARAMETRISATIONS, layer_from, path_from
from .lycoris import LoHa, LoKr
from .names import EXTRA, PART, PREFIX, candidates, find, index, is_text_encoder, kohya_name
from .parametrisations import LoRA, Parametrisation
from .reading import load, modules_of

__all__ = [
    "EXTRA",
    "PARAMETRISATIONS",
    "PART",
    "PREFIX",
    "Dropout",
    "Extracted",
    "LoHa",
    "LoKr",
    "LoRA",
    "Lora",
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
    "scale_norms",
    "set_dropout",
    "state_dict",
    "toggle",
]
