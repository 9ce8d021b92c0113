"""The nodes and the trainer in a process that may not connect, start a program, unpickle, or write elsewhere.

python confined.py FOLDER: all that is written has to be below FOLDER. Python's audit events tell of every attempt, and
the hook cannot be taken off again, which is why this is a process of its own. They do not tell what native code opens:
test_files.py looks at what was written.
"""

import os
import pickle
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ALLOWED = Path(sys.argv[1]).resolve()
os.environ |= {"MPLCONFIGDIR": str(ALLOWED / "matplotlib"), "OMP_NUM_THREADS": "1"}

from host_process import pack, run, sample, sigmas, tcd_sampler  # noqa: E402
from short_runs import options_of, pictures  # noqa: E402

from training import train  # noqa: E402

CONNECTS = ("socket.", "ftplib.", "http.", "imaplib.", "nntplib.", "poplib.", "smtplib.", "telnetlib.", "urllib.")
STARTS = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.", "subprocess.")
REFUSED = (*CONNECTS, *STARTS, "pickle.find_class", "webbrowser.")
CHANGES = ("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ATTEMPTS = (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: subprocess.run([sys.executable, "-V"], check=False),
    lambda: pickle.loads(pickle.dumps(Path)),
    lambda: (ALLOWED.parent / "elsewhere").touch(),
    lambda: (ALLOWED / ".." / "elsewhere").mkdir(),
    lambda: (ALLOWED / "here").rename(ALLOWED.parent / "elsewhere"),
)


def changed(event: str, given: tuple) -> Iterable[Any]:
    """What an event is about to write to, make, move or remove: paths, and numbers of files that are open already."""
    if event == "open":
        return given[:1] if given[2] & WRITING else ()
    return (one for one in given if isinstance(one, str | bytes | os.PathLike)) if event in CHANGES else ()


def is_elsewhere(path: Any) -> bool:
    """Whether it is neither below the folder, nor a file that is open already, nor the null device."""
    if isinstance(path, int) or os.fspath(path) == os.devnull:
        return False
    return not Path(os.fsdecode(path)).resolve().is_relative_to(ALLOWED)


def watch(event: str, given: tuple) -> None:
    """Python's audit hook: raises at what is refused."""
    if event.startswith(REFUSED) or any(map(is_elsewhere, changed(event, given))):
        raise PermissionError(f"refused: {event} {given[:2]}")


def try_what_is_refused() -> None:
    """The hook does what it says."""
    for i, attempt in enumerate(ATTEMPTS):
        try:
            attempt()
        except PermissionError:
            continue
        sys.exit(f"attempt {i} was not refused")


def use_nodes() -> None:
    """Load the tiny model and its LoRA, sample, compare and view."""
    import folder_paths

    for name in ("temp", "output"):
        setattr(folder_paths, f"{name}_directory", str(ALLOWED / name))
    model, clip, vae = run("TCD_TinyLoader")
    model = run("TCD_LoraLoader", model=model, lora="tcd_tiny_lora.safetensors", strength=1.0)[0]
    watched, recorder = run("TCD_RecordTrajectory", model=model)
    (cond,) = run("CLIPTextEncode", clip=clip, text="red heart")
    latent = {"samples": sample(watched, cond, tcd_sampler(), sigmas(model, 2))}
    told = {"seed": 0, "methods": "tcd, euler", "steps": "1", "gammas": "0.3", "order": "1"}
    told |= {"equal_evaluations": False, "cfg": 1.0}
    run("TCD_Compare", model=model, vae=vae, positive=cond, latent=latent, **told)
    for keep in (False, True):
        run("TCD_ViewTrajectory", trajectory=recorder, latent=latent, item=0, save=keep, vae=vae)


def use_trainer() -> None:
    """Three steps of a run, with its log, state and sample pictures; then on from its state."""
    data, output = pictures(ALLOWED / "data"), ALLOWED / "run"
    prompts = ALLOWED / "prompts.txt"
    prompts.write_text("red heart --d 1 --s 2\n", encoding="utf-8")
    told = {"checkpoint_loader": "demo.tiny:load", "resolution": "128", "save_state": True, "save_every_n_steps": 2}
    told |= {
        "sample_prompts": str(prompts),
        "sample_every_n_steps": 2,
        "cache_latents_to_disk": True,
        "ode_error_steps": 2,
    }
    for more in ({}, {"resume": "auto", "max_train_steps": 4}):
        train.train(options_of(data, output, **told, **more))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    assert list(pack())
    import comfy.sd  # noqa: F401
    from comfy_extras import nodes_custom_sampler  # noqa: F401

    from tcd import plot  # noqa: F401

    sys.dont_write_bytecode = True
    sys.addaudithook(watch)
    for step in (try_what_is_refused, use_nodes, use_trainer):
        step()
    sys.stdout.write("all done\n")
