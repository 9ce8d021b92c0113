"""What checkers of custom nodes, nodesafe and comfy-test of PyPI, say of the registry's archive."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packed import unpack

pytestmark = pytest.mark.slow

# nodesafe's second layer looks for texts alone, and takes these for the built-in compile(text) and eval(text). Imports
# by name are looked at in test_source.py.
MISTAKEN = re.compile(r"\.compile\(|\beval\(\)|\bliteral_eval\(|\bimport_module\b")
PATTERN = re.compile(r"pattern `(.+)` matched")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return unpack(tmp_path_factory.mktemp("registry") / "trajectory-consistency")


def checked(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A program that stands beside Python."""
    command = [Path(sys.executable).with_name(name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def is_mistaken(finding: dict[str, Any], archive: Path) -> bool:
    """Whether a text that was found is gone once the methods of that name are."""
    said = PATTERN.search(finding["title"])
    line = (archive / finding["file"]).read_text(encoding="utf-8").splitlines()[finding["line"] - 1]
    return finding["layer"] == "L2" and said is not None and said[1] not in MISTAKEN.sub("", line)


def test_nodesafe_finds_nothing_of_high_severity_but_methods_of_other_things(archive):
    done = checked("nodesafe", "scan", archive, "--format", "json", "--no-llm")
    found = json.loads(done.stdout)
    assert {"L0", "L1", "L2", "L3"} <= set(found["scan"]["layers_run"])
    severe = [finding for finding in found["findings"] if finding["severity"] in ("high", "critical")]
    assert [finding for finding in severe if not is_mistaken(finding, archive)] == []


def test_comfy_test_s_syntax_level_passes(archive):
    done = checked("comfy-test", "lint", archive, "--check", "syntax")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Forbidden patterns check: OK" in done.stdout
