"""What is drawn at random, each sample from a generator of its own.

So a sample's draws depend on the seed, the step and its place in the step's whole batch alone: not on how many
processes share that batch, nor on whether the run was interrupted.
"""

import hashlib

import torch


def generator(seed: int, *place: int | str) -> torch.Generator:
    """A generator on the CPU that belongs to `place`, such as ("noise", batch, sample).

    >>> bool(torch.rand(1, generator=generator(0, "noise", 7)) == torch.rand(1, generator=generator(0, "noise", 7)))
    True
    """
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
