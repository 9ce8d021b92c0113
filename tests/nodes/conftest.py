"""The tiny model, loaded once, as our loader node gives it."""

from typing import Any

import pytest
from host_process import pack, run


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE)."""
    return run("TCD_TinyLoader")


@pytest.fixture
def model(tiny: tuple) -> Any:
    return tiny[0]


@pytest.fixture(scope="session")
def cond(tiny: tuple) -> Any:
    """A prompt, encoded."""
    return run("CLIPTextEncode", clip=tiny[1], text="red heart")[0]


@pytest.fixture
def temp_folder(tmp_path, monkeypatch):
    """Where nodes put their previews, instead of the host's own folder."""
    pack()
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return tmp_path
