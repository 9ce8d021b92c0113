"""Captions as the network is told them: encoded once, or anew whenever they are asked for."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from .. import host
from ..host import Cond
from ..options import Options
from .cache import Folder, Store, key, weights_key

Texts = Callable[[str], Cond]
LOOKED_AT = 4096  # numbers of each tensor of a large network, for its key


def encoder_key(models: host.Models, opts: Options) -> str:
    """Of what turns texts into conditions."""
    return key(weights_key(models.clip.cond_stage_model, LOOKED_AT), models.architecture, opts.clip_skip)


def texts(models: host.Models, captions: Iterable[str], opts: Options) -> Texts:
    """The conditions of these captions, and of no caption, by their text."""
    if not opts.cache_text_encoder_outputs:
        return lambda text: host.encode_text(models, text)
    store: Store = {}
    maker = ""
    if opts.cache_text_encoder_outputs_to_disk:
        store, maker = Folder(Path(opts.output_dir, "cache", "texts")), encoder_key(models, opts)
    for text in tqdm(sorted({"", *captions}), desc="encode captions", unit="caption"):
        if key(text, maker) not in store:
            store[key(text, maker)] = host.encode_text(models, text).tensors()
    return lambda text: Cond.of_tensors(store[key(text, maker)])


def unconditional(encoded: Texts, opts: Options) -> Cond:
    """The condition of no prompt, as `uncond` says."""
    empty = encoded("")
    return {"empty_prompt": empty, "zeros": empty.zeros()}[opts.uncond]
