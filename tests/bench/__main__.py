"""Run benchmarks, all or some by name, each in a process of its own, and put what they print into docs/benchmarks.md.

python3 dev.py bench             # all: half of the time goes into compiling a network
python3 dev.py bench tcd nodes   # some: the other tables stay as they were
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
BENCHMARKS = {  # name -> script and arguments
    "tcd": ["tcd_step.py"],
    "nodes": ["nodes_step.py"],
    "training": ["training_step.py"],
    "compiled": ["training_step.py", "compiled"],
    "sdxl": ["sdxl_step.py"],
}
NEEDS_GPU = ("sdxl",)


def processor() -> str:
    """The name of this machine's processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def machine() -> str:
    """What the figures were measured on."""
    cores, memory = os.cpu_count(), psutil.virtual_memory().total / 2**30
    parts = [processor(), f"{cores} cores", f"{memory:.0f} GiB", f"Python {platform.python_version()}"]
    parts.append(f"torch {torch.__version__.partition('+')[0]}")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def measured(name: str) -> str:
    """Run a benchmark, showing what it prints; returns that. Raises CalledProcessError if it fails."""
    said = []
    script, *arguments = BENCHMARKS[name]
    command = [sys.executable, str(HERE / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(said).strip()


def put(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks of a benchmark, in place of what was there.

    >>> put("a\\n<!-- tcd -->\\nold\\n<!-- /tcd -->\\nb", "tcd", "new")
    'a\\n<!-- tcd -->\\nnew\\n<!-- /tcd -->\\nb'
    """
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have {begin.strip()} and {end.strip()} once each")
    before, after = page.split(begin)[0], page.split(end)[1]
    return f"{before}{begin}{text}{end}{after}"


def write(name: str, said: str) -> None:
    """Put a benchmark's output, its command and this machine into the page."""
    text = f"`python3 dev.py bench {name}` on {machine()}:\n\n{said}"
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("dev.py bench", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", metavar="what", help=f"{', '.join(BENCHMARKS)} (default: all)")
    asked = parser.parse_args(arguments).what
    if unknown := [name for name in asked if name not in BENCHMARKS]:
        parser.error(f"what must be among {', '.join(BENCHMARKS)}, got {unknown[0]}")
    for name in asked or BENCHMARKS:
        if name in NEEDS_GPU and not asked and not torch.cuda.is_available():
            print(f"{name}: left out, it is measured on a GPU and none is here", flush=True)
            continue
        try:
            write(name, measured(name))
        except subprocess.CalledProcessError as error:
            print(f"{name}: ended with code {error.returncode}; the page stays as it was", file=sys.stderr)
            return 1
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
