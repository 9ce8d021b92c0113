"""The viewer's modules without a browser: unit tests in node, and what ComfyUI demands of the files."""

import shutil
import subprocess
from pathlib import Path

import pytest

JAVASCRIPT = Path(__file__).resolve().parents[2] / "web" / "js"


def test_pure_modules():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on PATH: install Node.js 18 or later to run tests/viewer/state.test.mjs")
    command = [node, "--test", str(Path(__file__).with_name("state.test.mjs"))]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_entry_is_loaded_by_comfyui():
    """ComfyUI imports every .js below web/: helpers are .mjs."""
    assert list((JAVASCRIPT / "trajectory").glob("*.js")) == []
