"""What is released: the registry's archive holds all that ComfyUI and the trainer need and no more, the wheel `tcd`."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
import tomli
from packed import ROOT, listed, packed, unpack

MEGABYTES = 25
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMFY = PROJECT["tool"]["comfy"]

# Loads the pack of a folder as ComfyUI does, and samples with its model and its LoRA.
USE = """
import sys
from pathlib import Path

import host_process
from host_process import empty, run

host_process.ROOT = Path(sys.argv[1])
model, clip, vae = run("TCD_TinyLoader")
assert host_process.module("view").__file__.startswith(sys.argv[1])
model = run("TCD_LoraLoader", model=model, lora="tcd_tiny_lora.safetensors", strength=1.0)[0]
(cond,) = run("CLIPTextEncode", clip=clip, text="red heart")
told = {"seed": 0, "steps": 1, "cfg": 1.0, "gamma": 0.3, "order": "1", "denoise": 1.0, "grid": "distillation"}
latent = run("TCD_KSampler", model=model, positive=cond, negative=cond, latent=empty(), last_step="x0", **told)[0]
print(tuple(run("VAEDecode", vae=vae, samples=latent)[0].shape))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return unpack(tmp_path_factory.mktemp("registry") / "trajectory-consistency")


def python(code: str, *arguments: Path, path: tuple[Path, ...] = (), folder: Path | None = None) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- the registry's archive -------------------------------------------------------------------------------------------


def test_the_archive_holds_what_comfyui_reads_and_the_trainer():
    there = set(packed())
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "docs/training.md"} <= there
    assert {file for file in listed() if file.startswith(("locales/", "nodes/", "tcd/", "training/", "web/"))} <= there
    for workflow in (ROOT / "workflows").glob("*.json"):
        assert {f"workflows/{workflow.name}", f"workflows/{workflow.stem}.jpg"} <= there


def test_the_archive_leaves_out_what_users_do_not_need(archive):
    unneeded = re.compile(r"^(\.|tests/|docs/images/|demo/reproduce/|dev\.py)|\.jsonl$")
    assert [path for path in packed() if unneeded.search(path)] == []
    assert sum(path.stat().st_size for path in archive.rglob("*") if path.is_file()) < MEGABYTES * 1e6


@pytest.mark.host
@pytest.mark.slow
def test_the_archive_is_a_whole_pack_for_comfyui(archive):
    assert python(USE, archive, path=(ROOT, ROOT / "tests")).endswith("(1, 128, 128, 3)")


@pytest.mark.slow
def test_the_trainer_of_the_archive_starts(archive):
    code = "import training.train, training.evaluate.program; print(training.__file__)"
    assert Path(python(code, folder=archive)).parent.parent == archive


# --- what the registry is told ----------------------------------------------------------------------------------------


def test_there_is_one_version_and_the_changelog_has_it():
    version = PROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^\]]*)\]", changes, re.MULTILINE)[0] == version


def test_the_registry_is_told_what_it_asks_for():
    name = PROJECT["project"]["name"]
    assert re.fullmatch(r"[a-z](?:[-._]?[a-z0-9])*", name)
    assert "comfyui" not in name
    assert all((COMFY["PublisherId"], COMFY["DisplayName"], PROJECT["project"]["description"]))
    oldest = COMFY["requires-comfyui"].removeprefix(">=")
    assert f"ComfyUI {oldest} or later" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_icon_is_a_square_of_at_most_400_pixels():
    picture = ET.parse(ROOT / "docs" / "images" / "icon.svg").getroot()
    assert picture.get("width") == picture.get("height")
    assert int(picture.get("width", "")) <= 400


# --- the wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as a build leaves folders behind."""
    folder = unpack(tmp_path_factory.mktemp("wheel") / "source")
    how = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *how, folder], check=True)
    return next((folder / "dist").glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_tcd_alone(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
        kept = {Path(name).name for name in file.namelist() if ".dist-info/" in name}
    assert sorted(names) == [path for path in packed() if path.startswith("tcd/")]
    assert {"LICENSE", "METADATA"} <= kept
    project = PROJECT["project"]
    assert wheel.name == f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"


@pytest.mark.slow
def test_the_wheel_is_installed_into_a_new_environment_and_imported(wheel, tmp_path):
    """torch and the rest come from this environment, which is looked at last: they are gigabytes."""
    new = tmp_path / "new"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", new], check=True)
    own = new / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [sys.executable, "-m", "pip", "--python", own, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    import torch

    others = str(Path(torch.__file__).parent.parent)
    ask = f"import sys; sys.path.append({others!r}); import tcd, tcd.plot; print(tcd.__file__)"
    done = subprocess.run([own, "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert new in Path(done.stdout.strip()).parents
