"""Damage to the bytes of a file, the same for the same seed."""

from collections.abc import Callable, Iterator
from random import Random

ODD = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xef\xbb\xbf",
    b"[",
    b"{",
    b'"',
    b"-1",
)


def seeds(name: str, count: int) -> Iterator[Random]:
    """`count` sources of chance; each is known by its number, so that a case can be run alone."""
    for number in range(count):
        yield Random(f"{name} {number}")


def span(content: bytes, chance: Random) -> slice:
    """Some bytes, mostly few."""
    start = chance.randrange(len(content) + 1)
    return slice(start, start + int(chance.expovariate(1 / 16)) + 1)


def truncated(content: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def flipped(content: bytes, chance: Random) -> bytes:
    """One bit, anywhere."""
    if not content:
        return content
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def without(content: bytes, chance: Random) -> bytes:
    part = span(content, chance)
    return content[: part.start] + content[part.stop :]


def doubled(content: bytes, chance: Random) -> bytes:
    part = span(content, chance)
    return content[: part.stop] + content[part] + content[part.stop :]


def zeroed(content: bytes, chance: Random) -> bytes:
    part = span(content, chance)
    return content[: part.start] + bytes(len(content[part])) + content[part.stop :]


def scrambled(content: bytes, chance: Random) -> bytes:
    part = span(content, chance)
    return content[: part.start] + chance.randbytes(len(content[part])) + content[part.stop :]


def odd(content: bytes, chance: Random) -> bytes:
    """Bytes that often are a limit or a mark, put over others or between them."""
    start, put = chance.randrange(len(content) + 1), chance.choice(ODD)
    return content[:start] + put + content[start + len(put) * chance.randrange(2) :]


def lengthened(content: bytes, chance: Random) -> bytes:
    return content + chance.randbytes(chance.randrange(1, 64))


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(truncated, flipped, without, doubled, zeroed, scrambled, odd, lengthened),
)


def damaged(content: bytes, chance: Random) -> bytes:
    """One to three mutations, one after another."""
    for mutate in chance.choices(MUTATIONS, k=chance.choice((1, 1, 1, 2, 3))):
        content = mutate(content, chance)
    return content
