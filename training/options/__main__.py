"""Write the table of all options into docs/training.md: python -m training.options"""

from dataclasses import Field
from pathlib import Path

from .fields import FIELDS, GROUPS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- options -->", "<!-- /options -->"


def allowed(option: Field) -> str:
    """Which values an option takes, in a word."""
    told = option.metadata
    if told["choices"]:
        return ", ".join(f"`{choice}`" for choice in told["choices"])
    words = [f"at least {told['least']}"] if told["least"] is not None else []
    if told["of"]:
        words.append("with " + " or ".join(f"`{condition}`" for condition in told["of"].split("|")))
    return "; ".join(words)


def shown(value: object) -> str:
    """A default: nothing for one that is empty."""
    return "" if value in ("", ()) else f"`{value}`"


def markdown() -> str:
    """A table for every group of options."""
    lines = []
    for group in GROUPS:
        lines += [f"### {group.__doc__}", "| option | default | what it is | values |", "| --- | --- | --- | --- |"]
        for name in group.__annotations__:
            f = FIELDS[name]
            lines.append(
                f"| `{name}` | {shown(f.default)} | {f.metadata['help']} | {allowed(f)} |".replace("  |", " |")
            )
        lines.append("")
    return "\n".join(lines)


def with_table(page: str, table: str = "", begin: str = BEGIN, end: str = END) -> str:
    """The page with the table, or another one, in its place."""
    before, rest = page.split(begin)
    return f"{before}{begin}\n{table or markdown()}{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
