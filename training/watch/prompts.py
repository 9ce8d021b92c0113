"""Files of prompts for sample pictures, in the syntax of kohya's trainers.

red heart --n blurry --w 512 --h 768 --d 7 --s 4
# a comment
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..options import Options
from ..textfile import read_text


@dataclass(frozen=True)
class Prompt:
    """One picture that is wanted: in how many steps of the student, each a picture of its own, and under which cfg.

    Without a `negative` the guided teacher goes away from the unconditional embedding that is trained with.
    """

    place: str  # file and line, for messages
    text: str
    width: int
    height: int
    seed: int
    steps: tuple[int, ...]
    cfg: float = 1.0
    negative: str | None = None


class Flag(NamedTuple):
    """The field of a prompt, how its value is read, and what is allowed, in words."""

    field: str
    read: Callable[[str], Any]
    allowed: str


def within(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """A number in [low, high]. Raises ValueError for others."""

    def read(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:  # so put, it also refuses nan
            raise ValueError(text)
        return value

    return read


SIDE = Flag("", within(int, 1, 16384), "a whole number from 1 to 16384")
FLAGS = {
    "n": Flag("negative", str, "a text"),
    "w": SIDE._replace(field="width"),
    "h": SIDE._replace(field="height"),
    "d": Flag("seed", within(int, 0, 2**64 - 1), "a whole number from 0 to 2^64 - 1"),
    "s": Flag("steps", lambda text: (within(int, 1, 1000)(text),), "a whole number from 1 to 1000"),
    "l": Flag("cfg", within(float, 1, 1000), "a number from 1 (no guidance of the student) to 1000"),
}


def flag_of(part: str) -> tuple[str, Any]:
    """(field, value) of one `name value`. Raises ValueError for an unknown name or a bad value."""
    name, _, text = part.partition(" ")
    if name.lower() not in FLAGS:
        raise ValueError(f"flags must be one of {', '.join(f'--{known}' for known in FLAGS)}; got '--{name}'")
    flag, text = FLAGS[name.lower()], text.strip()
    try:
        return flag.field, flag.read(text)
    except ValueError:
        raise ValueError(f"--{name} must be {flag.allowed}, got {text!r}") from None


def flags_of(parts: list[str]) -> dict[str, Any]:
    """All flags of a line by field. Raises ValueError for one that is there twice."""
    found: dict[str, Any] = {}
    for part in parts:
        field, value = flag_of(part)
        if field in found:
            raise ValueError(f"a flag may be given once, got '--{part}' again")
        found[field] = value
    return found


def read(opts: Options) -> list[Prompt]:
    """The prompts of `sample_prompts`; what a line does not say is as the options have it, its seed that of its place.

    Raises ValueError with file and line for unknown flags and bad values, and for a file without prompts.
    """
    path, found = Path(opts.sample_prompts), list[Prompt]()
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"sample_prompts {path} is not readable text: {error}") from None
    (width, height), steps = opts.size, tuple(map(int, opts.sample_steps.split(",")))
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            place, (text, *flags) = f"{path}, line {number}", f" {line}".split(" --")
            default = Prompt(place, text.strip(), width, height, opts.seed + len(found), steps)
            try:
                found.append(replace(default, **flags_of(flags)))
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
    if not found:
        raise ValueError(f"sample_prompts {path} holds no prompt")
    return found
