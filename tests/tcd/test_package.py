"""`tcd` as others use it: alone, quickly imported, and extended as its guide says."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from oracle import SCHEDULES, Gaussian, measured_orders

import tcd

ROOT = Path(__file__).resolve().parents[2]

# Refuses what a researcher's environment may lack, then samples, distils and measures.
ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "comfy demo diffusers einops matplotlib nodes PIL scipy training".split():
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import torch
import tcd
sched = tcd.DiscreteVP.scaled_linear()
net = torch.nn.Linear(3, 3)
predict = tcd.as_x0(lambda x, t: net(x), sched)
*_, last = tcd.sample(predict, sched, torch.randn(2, 3), tcd.timesteps(sched, 4))
t, n, m = tcd.draw_times(2, sched)
tcd.tcd_loss(predict, predict, predict, sched, torch.randn(2, 3), torch.randn(2, 3), t, n, m).backward()
adapter = tcd.lora.inject(torch.nn.Sequential(net), rank=2)
print(tcd.metrics.frechet_distance(torch.randn(9, 3), torch.randn(9, 3)) > 0, last.x_s.shape[0], len(adapter.layers))
"""

TIMED = """
import time, torch
began = time.perf_counter()
import tcd
print(time.perf_counter() - began)
"""


def python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints that finds nothing of this project but `tcd`."""
    (folder / "tcd").symlink_to(ROOT / "tcd", target_is_directory=True)
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_works_without_comfyui_and_all_that_is_optional(tmp_path: Path):
    assert python(ALONE, tmp_path) == "True 2 1"


@pytest.mark.slow
def test_it_is_imported_in_a_tenth_of_a_second_after_torch(tmp_path: Path):
    for name in "12345":  # another process may take its time: the quickest of five tells
        (tmp_path / name).mkdir()
    assert min(float(python(TIMED, tmp_path / name)) for name in "12345") < 0.1


def test_everything_that_it_exports_is_there_and_says_what_it_is():
    for name in set(tcd.__all__) - {"Predict", "SOLVERS", "TCF"}:  # a type and two tables have no docstring
        assert getattr(tcd, name).__doc__, name


def test_adding_a_function_is_as_short_as_the_guide_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    guide = (ROOT / "docs" / "tcd.md").read_text(encoding="utf-8").split("## How to add")[1]
    block = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[0]
    assert len(block.splitlines()) <= 10
    (tmp_path / "added.py").write_text("from tcd.tcf import TCF, between, tcf1\n" + block, encoding="utf-8")
    monkeypatch.setitem(tcd.TCF, "1+1", None)  # taken out again after the test
    spec = importlib.util.spec_from_file_location("added", tmp_path / "added.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    sched = SCHEDULES["flow"]
    assert measured_orders(tcd.TCF["1+1"], sched) == pytest.approx([1, 1], abs=0.15)
    data = Gaussian(sched)
    *_, last = tcd.sample(data.x0, sched, data.draw(1.0, (4, 2)), tcd.timesteps(sched, 4), 0.0, "1+1")
    assert last.x_s.isfinite().all()
