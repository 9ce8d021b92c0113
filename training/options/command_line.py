"""Options from flags and from a TOML file."""

import argparse
import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from ..textfile import read_text
from .checks import check
from .fields import GROUPS, REFUSED, Options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says of an unknown flag which one was meant."""

    def __init__(self, unknown: Callable[[str], str], **named: Any):
        super().__init__(**named)
        self.unknown = unknown

    def parse_args(self, args=None, namespace=None):
        found, rest = self.parse_known_args(args, namespace)
        for flag in rest:
            if flag.startswith("--"):
                self.error(self.unknown(flag[2:].partition("=")[0]))
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return found


def hint(name: str, known: Iterable[str]) -> str:
    """At the known name that is most like this one; nothing where none is."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value of a TOML file is of this type; a whole number does for a fraction, unless it is too large."""
    return type(value) is kind or (kind is float and type(value) is int and abs(value) < 2**1000)


def read_toml(path: Path, what: str = "config_file") -> dict[str, Any]:
    """The content of a TOML file. Raises ValueError, with its path, for one that is missing or no TOML."""
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"no such {what}: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{what} {path} is not valid TOML: {reason}") from None


@dataclass(frozen=True)
class Program(Generic[T]):
    """What one command reads: a dataclass of options, made of groups, from its flags and a TOML file."""

    name: str
    description: str
    options: type[T]
    groups: tuple[type, ...]
    check: Callable[[T], T]
    refused: Mapping[str, str] = field(default_factory=dict)  # names that are known elsewhere -> why not here

    @cached_property
    def fields(self) -> dict[str, dataclasses.Field]:
        return {f.name: f for f in dataclasses.fields(self.options)}  # pyright: ignore[reportArgumentType]

    @cached_property
    def types(self) -> dict[str, Any]:
        return get_type_hints(self.options)

    def unknown(self, name: str) -> str:
        """Why there is no option of this name: what kohya's of that name would do here, or the nearest one."""
        if name in self.refused:
            return f"{name} is not for distillation: {self.refused[name]}"
        return f"unknown option {name!r}{hint(name, self.fields)}"

    def argument_of(self, name: str) -> dict[str, Any]:
        """What argparse has to know of an option."""
        f, wanted = self.fields[name], self.types[name]
        made: dict[str, Any] = {
            "default": None,
            "help": f"{f.metadata['help']} (default: {f.default!r})".replace("%", "%%"),
        }
        if wanted is bool:
            return made | {"action": argparse.BooleanOptionalAction}
        if get_origin(wanted) is tuple:
            return made | {"nargs": "*", "type": get_args(wanted)[0]}
        return made | {"type": wanted, "choices": f.metadata["choices"]}

    def parser(self) -> argparse.ArgumentParser:
        """The command line, made from the fields."""
        made = Parser(self.unknown, prog=self.name, description=self.description, allow_abbrev=False)
        made.add_argument("--config_file", type=Path, help="TOML file of these options; flags win over it")
        for group in self.groups:
            section = made.add_argument_group(group.__doc__ or "")
            for name in group.__annotations__:
                section.add_argument(f"--{name}", **self.argument_of(name))
        return made

    def converted(self, name: str, value: Any) -> Any:
        """A value of a TOML file in the option's type. Raises ValueError for one of another type."""
        wanted = self.types[name]
        if name == "resolution" and type(value) is int:  # which kohya's files have as a number
            return str(value)
        if get_origin(wanted) is tuple and isinstance(value, list):
            (kind, _) = get_args(wanted)
            if all(is_of(kind, item) for item in value):
                return tuple(map(kind, value))
        elif is_of(wanted, value):
            return wanted(value)
        kind = f"list of {get_args(wanted)[0].__name__}" if get_origin(wanted) is tuple else wanted.__name__
        raise ValueError(f"{name} must be of type {kind}, got {value!r:.200}")

    def from_toml(self, path: Path) -> dict[str, Any]:
        """The options in a TOML file. Unknown names are errors that suggest the nearest; so are other types."""
        found = {}
        for name, value in read_toml(path).items():
            if name not in self.fields:
                raise ValueError(f"{path}: {self.unknown(name)}")
            try:
                found[name] = self.converted(name, value)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        return found

    def read(self, arguments: list[str] | None = None) -> T:
        """Options from the command line and the TOML file that it names, checked."""
        flags = vars(self.parser().parse_args(arguments))
        config = flags.pop("config_file")
        values = self.from_toml(config) if config else {}
        flags = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}
        given = {name: value for name, value in flags.items() if value is not None}
        return self.check(self.options(**values | given))


TRAINER = Program(
    name="python -m training.train",
    description="Distil a diffusion model into a TCD LoRA that ComfyUI loads.",
    options=Options,
    groups=GROUPS,
    check=check,
    refused=REFUSED,
)
from_toml, parser, read, converted = TRAINER.from_toml, TRAINER.parser, TRAINER.read, TRAINER.converted


def to_toml(options: Any) -> str:
    """Options as a TOML file that `from_toml` reads back: the resolved configuration of a run."""
    return "".join(f"{f.name} = {as_toml(getattr(options, f.name))}\n" for f in dataclasses.fields(options))


def as_toml(value: Any) -> str:
    """One value. Strings are JSON's, which TOML's basic strings take as they are, but for surrogates and DEL.

    >>> as_toml(("a", 'b"')), as_toml(True), as_toml(1e-4)
    ('["a", "b\\\\""]', 'true', '0.0001')
    """
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False).replace("\x7f", "\\u007f")
