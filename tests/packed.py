"""What `comfy node publish` puts into the registry's archive: the tracked files but for those of .comfyignore."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def listed(*arguments: str) -> set[str]:
    """Tracked files by git, whose own syntax .comfyignore has."""
    done = subprocess.run(["git", "ls-files", "-z", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the archive is made of a git checkout: {done.stderr}"
    return set(filter(None, done.stdout.split("\0")))


@cache
def packed() -> list[str]:
    """Paths below the root, with slashes."""
    found = listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(file for file in found if (ROOT / file).is_file())


def sources() -> list[Path]:
    """The Python files among them."""
    return [ROOT / file for file in packed() if file.endswith(".py")]


def unpack(folder: Path) -> Path:
    """A copy of all of them in a folder, as the registry's clients leave it."""
    for file in packed():
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, target)
    return folder
