"""demo/server.py: linking the pack, and what is said when ComfyUI does not start."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo import server


@pytest.fixture
def host(tmp_path):
    (tmp_path / "custom_nodes").mkdir()
    return tmp_path


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "LOG", tmp_path / "server.log")
    return server.LOG


def test_the_pack_is_linked_once(host):
    link = server.link_pack(host)
    assert link.resolve() == server.ROOT
    assert server.link_pack(host) == link
    assert list((host / "custom_nodes").iterdir()) == [link]


def test_a_link_of_another_name_is_used(host):
    mine = host / "custom_nodes" / "my-tcd"
    server.make_link(mine)
    assert server.link_pack(host) == mine


def test_a_link_to_nowhere_is_replaced(host, tmp_path):
    (host / "custom_nodes" / server.PACK).symlink_to(tmp_path / "gone", target_is_directory=True)
    assert server.link_pack(host).resolve() == server.ROOT


def test_another_copy_of_the_pack_is_left_alone(host):
    copy = host / "custom_nodes" / server.PACK
    copy.mkdir()
    with pytest.raises(server.ServerError, match="is another copy of this pack: move it away"):
        server.link_pack(host)
    assert copy.is_dir()


def test_a_host_that_cannot_be_written_is_named(host, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(server.Path, "symlink_to", refuse)
    monkeypatch.setattr(server.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1))
    with pytest.raises(server.ServerError, match=r"cannot make .*trajectory-consistency \(Permission denied\)"):
        server.link_pack(host)


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(server.ServerError, match=f"port {port} cannot be used"):
            server.free_port(port)


def test_a_server_that_ends_at_once_is_told_with_its_last_words(log):
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", "print('no such module'); raise SystemExit(3)"], stdout=file)
    with pytest.raises(server.ServerError, match="ended at its start:\nno such module"):
        server.wait_until_ready(process, f"http://127.0.0.1:{server.free_port()}")


def test_a_server_that_never_answers_is_given_up(log, monkeypatch):
    monkeypatch.setattr(server, "SECONDS_TO_START", 0)
    log.write_text("loading")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(server.ServerError, match="did not answer in 0 s:\nloading"):
            server.wait_until_ready(process, f"http://127.0.0.1:{server.free_port()}")
    finally:
        server.stop(process)
    assert process.returncode is not None


def test_a_pack_that_comfyui_could_not_import_is_an_error(host, log):
    pack = host / "custom_nodes" / server.PACK
    log.write_text(f"   0.0 seconds: {pack}\n")
    server.check_pack(pack)
    log.write_text(f"Cannot import {pack} module for custom nodes: boom\n   0.0 seconds (IMPORT FAILED): {pack}\n")
    with pytest.raises(server.ServerError, match=r"could not load this pack:\nCannot import .*: boom"):
        server.check_pack(pack)


def test_other_packs_and_another_models_folder_are_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "has_accelerator", lambda python: True)
    models = tmp_path / "weights"
    (models / "loras").mkdir(parents=True)
    (models / "notes.txt").touch()
    command = server.server_command("python", 1, tmp_path / "work", ["ours", "theirs"], models)
    packs = command.index("--whitelist-custom-nodes")
    assert command[packs + 1 : packs + 3] == ["ours", "theirs"]
    config = command[command.index("--extra-model-paths-config") + 1]
    assert json.loads(Path(config).read_text()) == {"more": {"base_path": str(models), "loras": "loras"}}


def test_without_a_models_folder_comfyui_uses_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "has_accelerator", lambda python: False)
    command = server.server_command("python", 1, tmp_path, ["ours"])
    assert "--extra-model-paths-config" not in command
    assert command[-1] == "--cpu"
