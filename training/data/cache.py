"""Tensors that are kept from run to run, as files that are named by what they were made from."""

import hashlib
import time
import uuid
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]
DAY = 24 * 60 * 60  # seconds


def key(*parts: object) -> str:
    """A name for what `parts`, of numbers, texts and tuples, describe.

    >>> key("a red heart", 1), key("a red heart", 2)
    ('6012b37598baf3b1cf16c33e0d4ace26', '01371d4a3d28a68790b2cb1b779bd6e8')
    """
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def weights_key(module: nn.Module, most: int | None = None) -> str:
    """A name for the weights of a module, by their names, formats, shapes and bytes.

    Of a tensor with more than `most` numbers, about so many are looked at, evenly spread: what was trained or merged
    has changed among them, and ten gigabytes are read in no time.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().reshape(-1)
        flat = flat[:: -(-len(flat) // most)] if most and len(flat) > most else flat
        digest.update(flat.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Folder:
    """Tensors by key, each in a file of its own: a `dict` on the disk."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for scratch in path.glob("*.tmp"):  # of processes that were killed, and perhaps of one that is at work
            with suppress(OSError):  # gone meanwhile, or on a disk that is only read
                if scratch.stat().st_mtime < time.time() - DAY:
                    scratch.unlink()

    def file(self, key: str) -> Path:
        return self.path / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        """Whether there is a file, as long as its header says: a broken one counts as none, and is made again."""
        try:
            with safe_open(self.file(key), framework="pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def __getitem__(self, key: str) -> Tensors:
        """Raises ValueError, with its path, for a file that has vanished or was broken since."""
        try:
            return load_file(self.file(key))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"the cache {self.file(key)} cannot be read, start again to remake it: {error}") from error

    def __setitem__(self, key: str, tensors: Tensors) -> None:
        """Written whole or not at all, also where several processes write the same. Raises OSError if it cannot be."""
        scratch = self.file(key).with_suffix(f".{uuid.uuid4().hex}.tmp")
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch)
            scratch.replace(self.file(key))
        except (OSError, SafetensorError) as error:
            raise OSError(f"the cache {self.file(key)} could not be written: {error}") from error
        finally:
            with suppress(OSError):  # where nothing could be made, nothing is there to be removed
                scratch.unlink()


Store = dict[str, Tensors] | Folder
