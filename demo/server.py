"""A real ComfyUI as a context manager, with this pack linked into it: for the demo, the front end and the tests.

    with running_server() as base_url:
        ...

Standard library only: dev.py uses it from a Python that has nothing installed.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".cache" / "server.log"
PACK = "trajectory-consistency"  # its name below custom_nodes
SECONDS_TO_START = 180  # ten are usual; a cold disk or a busy machine may need far more
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
FOLDERS = ("output", "temp", "input", "user")
ACCELERATOR = "import torch as t; print(any(x.is_available() for x in (t.cuda, t.xpu, t.backends.mps)))"


class ServerError(RuntimeError):
    """ComfyUI could not be started: the message says why and what to do."""


def comfyui_folder() -> Path:
    """The host in use. Imported late: training.host brings torch along, which dev.py's own Python may not have."""
    from training import host

    return host.comfyui_folder()


def link_pack(host: Path) -> Path:
    """The entry of the host's custom_nodes that is this project; made if there is none yet."""
    custom_nodes = host / "custom_nodes"
    custom_nodes.mkdir(exist_ok=True)
    for entry in custom_nodes.iterdir():
        if entry.resolve() == ROOT:
            return entry
    link = custom_nodes / PACK
    if link.is_symlink():  # to a place where the project is no longer
        link.unlink()
    if link.exists():
        raise ServerError(f"{link} is another copy of this pack: move it away, so that this one can be linked there")
    make_link(link)
    return link


def make_link(link: Path) -> None:
    """A symbolic link to the project, or the junction that Windows grants to everybody."""
    try:
        link.symlink_to(ROOT, target_is_directory=True)
    except OSError as error:
        junction = ["cmd", "/c", "mklink", "/J", str(link), str(ROOT)]
        if os.name != "nt" or subprocess.run(junction, capture_output=True).returncode != 0:
            raise ServerError(f"cannot make {link} ({error.strerror}): make that folder writable") from error


def free_port(port: int = 0) -> int:
    """`port` if nobody listens there, any free one for 0."""
    try:
        with socket.create_server(("127.0.0.1", port)) as listener:
            return listener.getsockname()[1]
    except OSError as error:
        raise ServerError(f"port {port} cannot be used ({error.strerror}): choose another with --port") from error


def has_accelerator(python: str) -> bool:
    """Whether this interpreter's torch sees a GPU; where it sees none, ComfyUI wants to be told --cpu."""
    done = subprocess.run([python, "-c", ACCELERATOR], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServerError(f"{python} cannot use torch ({reason}): run ComfyUI's own set-up, or delete .venv")
    return done.stdout.strip() == "True"


def model_paths(models: Path, config: Path) -> list[str]:
    """What tells ComfyUI of another models folder. It reads YAML, and JSON is YAML."""
    folders = {entry.name: entry.name for entry in models.iterdir() if entry.is_dir()}
    config.write_text(json.dumps({"more": {"base_path": str(models.resolve()), **folders}}), encoding="utf-8")
    return ["--extra-model-paths-config", str(config)]


def server_command(python: str, port: int, folder: Path, packs: list[str], models: Path | None = None) -> list[str]:
    """The command line of a server that writes below `folder`, loads these packs alone and asks nobody outside."""
    command = [python, "main.py", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
    command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *packs]
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        command += [f"--{name}-directory", str(folder / name)]
    if models is not None:
        command += model_paths(models, folder / "model_paths.yaml")
    return command if has_accelerator(python) else [*command, "--cpu"]


def answers(base_url: str) -> bool:
    """Whether ComfyUI replies; asked directly, whatever proxy the environment names."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{base_url}/system_stats", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def log_lines() -> list[str]:
    return LOG.read_text(encoding="utf-8", errors="replace").splitlines()


def wait_until_ready(process: subprocess.Popen, base_url: str) -> None:
    """Return once the server answers. Raises ServerError as soon as it has ended, or never seems to."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not answers(base_url):
        if process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            continue
        ended = f"did not answer in {SECONDS_TO_START} s" if process.returncode is None else "ended at its start"
        said = "\n".join(log_lines()[-25:])
        raise ServerError(f"ComfyUI {ended}:\n{said}\n({LOG})\nMend what it says; .venv and .host may be deleted.")


def check_pack(pack: Path) -> None:
    """ComfyUI starts without a pack that it cannot import: raise ServerError where it is ours."""
    about_us = [line for line in log_lines() if pack.name in line]
    if any("(IMPORT FAILED)" in line for line in about_us):
        said = "\n".join(about_us)
        raise ServerError(f"ComfyUI could not load this pack:\n{said}\nMend what it says; the traceback is in {LOG}")


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def server_process(
    host: Path, python: str, folder: Path, port: int = 0, models: Path | None = None, packs: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen, str]]:
    """The server's process and address, once it answers; stopped at the end, however that comes.

    `models` is a folder laid out as ComfyUI's models, used beside it; `packs` are other packs of its custom_nodes.
    """
    port = free_port(port)
    base_url = f"http://127.0.0.1:{port}"
    pack = link_pack(host)
    command = server_command(python, port, folder, [pack.name, *packs], models)
    LOG.parent.mkdir(exist_ok=True)
    with suppress(PermissionError):  # a server that still runs keeps its own log, except on Windows
        LOG.unlink(missing_ok=True)
    with LOG.open("wb") as log:
        environment = {**os.environ, **OFFLINE, "PYTHONUTF8": "1"}
        process = subprocess.Popen(
            command, cwd=host, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until_ready(process, base_url)
        check_pack(pack)
        yield process, base_url
    finally:
        stop(process)


@contextmanager
def running_server(
    host: Path | None = None, python: str = sys.executable, models: Path | None = None, packs: Sequence[str] = ()
) -> Iterator[str]:
    """The address of a ComfyUI that runs for the length of the block and leaves nothing behind but its log.

    `models` and `packs` as in server_process.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        server_process(host or comfyui_folder(), python, Path(folder), models=models, packs=packs) as (_, base_url),
    ):
        yield base_url
