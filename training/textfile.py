"""Text files that people write: captions, prompts, settings."""

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises OSError, or ValueError for other content."""
    text = path.read_text(encoding="utf-8-sig")
    if "\0" in text:
        raise ValueError("it holds null bytes, as UTF-16 does")
    return text
