"""Numbers that are computed once: kept as JSON, under a key of what they follow from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training.data.cache import key
from training.evaluate.pictures import digest
from training.save import replace as put

T = TypeVar("T")


def content(path: Path) -> str:
    """A name for a file's content, to be part of a key."""
    return digest(path, path.stat().st_mtime_ns)


def remembered(folder: Path, name: str, follows_from: object, make: Callable[[], T]) -> T:
    """What `make` gives, as JSON has it: made now, or an earlier time for the same `follows_from`."""
    file = folder / f"{name}-{key(follows_from)}.json"
    if not file.is_file():
        text = json.dumps(make())
        put(file, lambda path: path.write_text(text, encoding="utf-8"))
    return json.loads(file.read_text(encoding="utf-8"))
