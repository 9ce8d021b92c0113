"""Sections, and the page that they make: docs/results.md."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from training.save import replace as put

from .claims import Claim


@dataclass(frozen=True)
class Section:
    """What one experiment has to say: Markdown under a title, and a line for every claim."""

    title: str
    text: str
    claims: list[Claim]


def row(cells: Iterable[str]) -> str:
    r"""A line of a Markdown table.

    >>> print(row(["|x|", "0.5"]))
    | \|x\| | 0.5 |
    """
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right.

    >>> print(table(["method", "error"], [["DDIM", "0.5"]]))
    | method | error |
    | --- | ---: |
    | DDIM | 0.5 |
    """
    return "\n".join(map(row, [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]))


def claims_table(claims: Iterable[Claim]) -> str:
    """A line for every claim."""
    rows = [[claim.source, claim.statement, claim.measured, f"**{claim.verdict}**"] for claim in claims]
    return "\n".join(map(row, [["where", "the paper", "here", "verdict"], ["---"] * 4, *rows]))


def keep(sections: Mapping[str, Section], path: Path) -> None:
    """Write sections by name, so that the page can be made again without their experiments."""
    text = json.dumps({name: asdict(section) for name, section in sections.items()}, indent=1)
    put(path, lambda scratch: scratch.write_text(text + "\n", encoding="utf-8"))


def kept(path: Path) -> dict[str, Section]:
    """The sections that were written; none where there is no such file."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Section(one["title"], one["text"], [Claim(**claim) for claim in one["claims"]])
        for name, one in found.items()
    }


def write(path: Path, introduction: str, sections: Sequence[Section]) -> None:
    """The page: what it is, all claims in one table, then the sections."""
    claims = claims_table(claim for section in sections for claim in section.claims)
    parts = [introduction, "## Every claim", claims, *(f"## {each.title}\n\n{each.text}" for each in sections)]
    put(path, lambda scratch: scratch.write_text("\n\n".join(parts) + "\n", encoding="utf-8"))
