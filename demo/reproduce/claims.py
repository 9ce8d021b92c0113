"""What the papers say, what was measured, and whether the two agree."""

from collections.abc import Sequence
from dataclasses import dataclass

AGREES, DIFFERS, OPEN = "agrees", "does not", "inconclusive"


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, where it is, our numbers in words, and the verdict."""

    source: str
    statement: str
    measured: str
    verdict: str


def verdict(lower: Sequence[float], higher: Sequence[float]) -> str:
    """Whether the first numbers are below the second, seed by seed: the seeds share captions and noise.

    It agrees where that holds for every seed, does not where the opposite does, and else is inconclusive.

    >>> verdict([1, 2], [3, 4]), verdict([3, 4], [1, 2]), verdict([1, 4], [3, 2])
    ('agrees', 'does not', 'inconclusive')
    """
    pairs = list(zip(lower, higher, strict=True))
    if all(a < b for a, b in pairs):
        return AGREES
    return DIFFERS if all(a > b for a, b in pairs) else OPEN


def all_of(verdicts: Sequence[str]) -> str:
    """Of a claim that is made of several: it agrees where all do, and does not where one does not.

    >>> all_of(["agrees", "agrees"]), all_of(["agrees", "inconclusive"]), all_of(["agrees", "does not"])
    ('agrees', 'inconclusive', 'does not')
    """
    if DIFFERS in verdicts:
        return DIFFERS
    return OPEN if OPEN in verdicts else AGREES


def tally(verdicts: Sequence[str]) -> str:
    """How many of several comparisons agree, in words.

    >>> tally(["agrees", "does not", "agrees"])
    '2 of 3 comparisons agree, 1 does not'
    """
    agree, differ = verdicts.count(AGREES), verdicts.count(DIFFERS)
    words = f"{agree} of {len(verdicts)} comparisons agree"
    return words + (f", {differ} do{'es' if differ == 1 else ''} not" if differ else "")
