"""The nodes and the trainer need no network, start no program, unpickle nothing, and write where they were told to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from host_process import ROOT

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_all_runs_in_a_process_that_refuses_the_rest(tmp_path):
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    command = [sys.executable, str(Path(__file__).with_name("confined.py")), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all done\n")
    assert (tmp_path / "run" / "new.safetensors").is_file()
    assert list((tmp_path / "temp").iterdir())
    assert list((tmp_path / "output" / "trajectory").iterdir())
