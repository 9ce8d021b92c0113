"""The rule for bad input: it is refused in words that name it, or what comes of it is right."""

import signal
from collections import Counter
from collections.abc import Callable, Collection
from typing import TypeVar

T = TypeVar("T")

AGREED = (ValueError, FileNotFoundError)  # what a caller may have to catch
SECONDS = 30  # for one case: far more than any takes, also on a busy machine
# Python's own words for a slip in the code: they tell a person nothing, also inside of an agreed error.
SLIPS = (
    *("NoneType", "object has no attribute", "unsupported operand", "object is not", "not supported between"),
    *("index out of range", "to unpack", "unexpected keyword", "missing 1 required", "referenced before"),
    *("unhashable", "recursion", "cannot be interpreted", "division by zero", "string pattern", "set to NaN"),
)

TALLY: Counter[tuple[str, str]] = Counter()  # (kind of input, "right" or "refused") -> cases


class HangError(BaseException):
    """A case that takes too long; no `except Exception` on the way keeps it."""


def too_long(*_: object) -> None:
    raise HangError(f"no answer within {SECONDS} seconds")


def check_words(said: str, names: Collection[str], values: Collection[str]) -> None:
    """A refusal names each of `names`, one of `values` where there are any, and no slip of the code."""
    for name in names:
        assert name in said, f"the refusal does not name {name!r}: {said}"
    assert not values or any(value in said for value in values), f"the refusal names none of {values}: {said}"
    slips = [slip for slip in SLIPS if slip in said]
    assert not slips, f"the refusal holds Python's own words: {said}"


def refused_or_right(
    what: str,
    act: Callable[[], T],
    right: Callable[[T], object],
    names: Collection[str] = (),
    values: Collection[str] = (),
) -> bool:
    """Whether `act` was done; `right` asserts that it came out right. Anything but an agreed refusal fails."""
    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found = act()
    except AGREED as error:
        check_words(str(error), names, values)
        TALLY[what, "refused"] += 1
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    right(found)
    TALLY[what, "right"] += 1
    return True
