"""The trainer's options: kohya's names and meanings, from flags and a TOML file, checked before any work."""

from .checks import check
from .command_line import from_toml, parser, read, read_toml, to_toml
from .fields import AT_LEAST, FIELDS, GROUPS, REFUSED, TYPES, Options

__all__ = [
    "AT_LEAST",
    "FIELDS",
    "GROUPS",
    "REFUSED",
    "TYPES",
    "Options",
    "check",
    "from_toml",
    "parser",
    "read",
    "read_toml",
    "to_toml",
]
