"""Where pictures are: folders, each of which has its own options."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..options import Options
from . import buckets

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Subset:
    """One folder of pictures, how often an epoch shows each, and the options as they hold for it."""

    folder: Path
    repeats: int
    opts: Options
    class_tokens: str = ""  # the caption of pictures without a caption file
    prefix: str = ""
    suffix: str = ""

    def pictures(self) -> list[Path]:
        """Raises ValueError where there are none."""
        found = [path for path in self.folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
        if not found:
            raise ValueError(f"no pictures ({', '.join(sorted(ENDINGS))}) in {self.folder}")
        return sorted(found)


def check(opts: Options) -> None:
    """Whether pictures and captions can be cut as a subset's options say. Raises ValueError."""
    buckets.check(opts)
    if not opts.caption_separator:
        raise ValueError("caption_separator must not be empty")
    if not re.fullmatch(r"\.[^/\\]*[^/\\. ]", opts.caption_extension) or opts.caption_extension.lower() in ENDINGS:
        raise ValueError(f"caption_extension must be an ending such as .txt, got {opts.caption_extension!r}")


def of_folders(opts: Options) -> list[Subset]:
    """The subfolders of train_data_dir, named {repeats}_{name}. Raises ValueError for another name, or without any.

    Unlike with kohya the name stands for no caption: a forgotten file is found. In TOML, `class_tokens` says so.
    """
    check(opts)
    found = []
    for folder in sorted(Path(opts.train_data_dir).iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        repeats = re.match(r"([1-9]\d*)_", folder.name)
        if not repeats:
            raise ValueError(f"{folder}: a picture folder is named {{repeats}}_{{name}}, from 1 on, such as 10_cat")
        found.append(Subset(folder, int(repeats[1]), opts))
    if not found:
        raise ValueError(f"no folder named {{repeats}}_{{name}}, such as 10_cat, in {opts.train_data_dir}")
    return found
