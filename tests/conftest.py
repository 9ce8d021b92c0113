"""What a test may need besides Python, and a word on what is missing: as a skip, or in CI as a failure."""

import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import pytest

from demo import server as demo_server
from demo.workflows.browser import CHROMIUM, chromium_path

os.environ.update(demo_server.OFFLINE)  # for the tests that load ComfyUI into their own process

TOLD = ("CI", "COMFYUI_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PATH", "PYTHONPATH")
REQUIRED = ("aiohttp", "comfyui_frontend_package", "sqlalchemy", "torchsde")  # a sample of ComfyUI's requirements


@cache
def missing_host() -> str:
    """Why no ComfyUI can be run here, or nothing."""
    try:
        demo_server.comfyui_folder()
    except (FileNotFoundError, ModuleNotFoundError) as error:
        return str(error)
    missing = [module for module in REQUIRED if find_spec(module) is None]
    return f"ComfyUI requires {', '.join(missing)}: run `python3 dev.py test`, which installs it" if missing else ""


@cache
def missing_browser() -> str:
    """Why no browser can be driven here, or nothing."""
    if chromium_path() is None:
        return f"none of {', '.join(CHROMIUM)} is on PATH: install Chromium (Debian: apt-get install chromium)"
    return "" if find_spec("playwright") else "playwright is missing: run `python3 dev.py test`, which installs it"


NEEDS = {"host": missing_host, "browser": missing_browser}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in NEEDS.items():
        reason = missing() if item.get_closest_marker(marker) else ""
        if reason and os.environ.get("CI"):
            pytest.fail(f"CI has to run every test: {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def untouched_environment() -> Iterator[None]:
    """No test may change what the processes that a later one starts are told. (Libraries may add their own.)"""
    before = [os.environ.get(name) for name in TOLD]
    yield
    assert [os.environ.get(name) for name in TOLD] == before, f"a test changed one of {', '.join(TOLD)}"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a real ComfyUI with this pack, one for all tests."""
    with demo_server.running_server() as base_url:
        yield base_url


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser, for playwright's executable_path."""
    path = chromium_path()
    assert path is not None, "only tests marked `browser` may ask for Chromium"
    return path
