"""Data that cannot be used: all of it named at once, then refused or left out."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from ..options import Options

LISTED = 20


class Bad(NamedTuple):
    """A picture or prompt, and what is wrong with it, such as "has no caption"."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


def listed(bad: Sequence[Bad]) -> list[str]:
    """A line for each, up to LISTED."""
    more = [f"... and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
    return [*map(str, bad[:LISTED]), *more]


def settle(bad: Sequence[Bad], total: int, opts: Options) -> None:
    """Go on without the bad ones of `total`, with a warning, if bad_data says so and any others are left.

    Raises ValueError if not.
    """
    if not bad:
        return
    text = "\n  ".join([f"{len(bad)} of {total} cannot be used:", *listed(bad)])
    if opts.bad_data == "refuse":
        raise ValueError(f"{text}\n(--bad_data skip leaves them out)")
    if len(bad) == total:
        raise ValueError(text)
    logging.warning("%s\nThey are left out.", text)
