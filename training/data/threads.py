"""Work that is done ahead, in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """`items` in parts of `size`, the last of which may be smaller.

    >>> chunks([1, 2, 3, 4, 5], 2)
    [[1, 2], [3, 4], [5]]
    """
    return [items[i : i + size] for i in range(0, len(items), size)]


def ahead(work: Callable[[T], R], batches: Iterable[Sequence[T]], threads: int) -> Iterator[list[R]]:
    """`work` done on every item of each batch, while the batch before is in use: no more is held than two batches."""
    waiting: deque[Iterator[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            waiting.append(pool.map(work, batch))
            if len(waiting) == 2:
                yield list(waiting.popleft())
        while waiting:
            yield list(waiting.popleft())
