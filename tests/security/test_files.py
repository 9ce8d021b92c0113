"""No name in a workflow, a LoRA file or an option leads out of the folders that the host or the user named."""

import http.client
import json
import shutil
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from host_process import ROOT, pack, run, sample, sigmas, tcd_sampler
from safetensors.torch import load_file, save_file

from demo import client
from demo.workflows import API, FOLDER
from training import save
from training.evaluate.loras import lora_file
from training.options.checks import check_name

EMBEDDED = ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"
OUTSIDE = "outside.safetensors"  # a LoRA that would fit, in the folder above that of the LoRAs
LEADS_OUT = {
    "up": f"../{OUTSIDE}",
    "up_and_down": f"below/../../{OUTSIDE}",
    "absolute": f"{{folder}}/{OUTSIDE}",
    "home": f"~/{OUTSIDE}",
    "address": f"file://{{folder}}/{OUTSIDE}",
    "windows_up": f"..\\{OUTSIDE}",
    "windows_drive": f"C:\\{OUTSIDE}",
    "windows_share": f"\\\\server\\share\\{OUTSIDE}",
    "null": f"../{OUTSIDE}\0.safetensors",
    "null_inside": f"\0../{OUTSIDE}",
    "line_ends": f"..\n/{OUTSIDE}",
    "long": f"{'a' * 5000}.safetensors",
    "deep": f"{'../' * 500}{{folder}}/{OUTSIDE}",
    "no_unicode": "\ud800.safetensors",
    "ending_alone": ".safetensors",
}
BAD_NAMES = [
    "",
    ".",
    "..",
    " ",
    "../new",
    "a/b",
    "/new",
    "a\\b",
    "C:new",
    "a\0b",
    "a\nb",
    "a*",
    "n" * 201,
    "\u00e9" * 101,
]
TWIN = json.loads((FOLDER / "api" / f"{API}.json").read_text(encoding="utf-8"))


@pytest.fixture
def loras(tmp_path, monkeypatch) -> Path:
    """A folder of LoRAs that ComfyUI looks into; beside it a LoRA that it must not read."""
    pack()
    import folder_paths

    folder = tmp_path / "loras"
    (folder / "below").mkdir(parents=True)
    shutil.copyfile(EMBEDDED, tmp_path / OUTSIDE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(folder)], {".safetensors"}))
    return folder


@pytest.fixture(scope="module")
def model():
    return run("TCD_TinyLoader")[0]


@pytest.mark.host
@pytest.mark.parametrize("name", LEADS_OUT.values(), ids=LEADS_OUT)
def test_the_loader_reads_no_lora_outside_its_folder(model, loras, name):
    with pytest.raises((ValueError, FileNotFoundError), match=r"safetensors"):
        run("TCD_LoraLoader", model=model, lora=name.format(folder=loras.parent), strength=1.0)


@pytest.mark.host
def test_a_link_in_the_folder_of_loras_is_followed_as_comfyui_does(model, loras):
    (loras / "linked.safetensors").symlink_to(loras.parent / OUTSIDE)
    assert "modules matched" in run("TCD_LoraLoader", model=model, lora="linked.safetensors", strength=1.0)[4]
    (loras / "dangling.safetensors").symlink_to(loras / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"dangling\.safetensors"):
        run("TCD_LoraLoader", model=model, lora="dangling.safetensors", strength=1.0)


@pytest.mark.host
def test_what_a_lora_says_of_itself_is_only_text(model, loras):
    said = {
        "ss_base_model_version": "../../etc/passwd",
        "modelspec.architecture": "<img src=x onerror=alert(1)>",
        "ss_network_dim": "\0",
        "tcd.method": "__import__('os').system('true')",
        "tcd.tcf": "../s+",
        "ss_network_args": json.dumps({"path": "/etc/passwd"}),
    }
    save_file(load_file(EMBEDDED), loras / "says.safetensors", said)
    before = sorted(loras.parent.rglob("*"))
    report = run("TCD_LoraLoader", model=model, lora="says.safetensors", strength=1.0)[4]
    assert "base ../../etc/passwd" in report
    assert sorted(loras.parent.rglob("*")) == before


@pytest.mark.host
@pytest.mark.parametrize("keep", [False, True], ids=["temporary", "kept"])
def test_a_view_is_written_below_the_host_s_folder_alone(tmp_path, monkeypatch, keep):
    model, clip, vae = run("TCD_TinyLoader")
    import folder_paths

    for name in ("temp", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    (cond,) = run("CLIPTextEncode", clip=clip, text="../../red heart")
    watched, recorder = run("TCD_RecordTrajectory", model=model)
    latent = {"samples": sample(watched, cond, tcd_sampler(), sigmas(model, 2))}
    *_, file = run("TCD_ViewTrajectory", trajectory=recorder, latent=latent, item=0, save=keep, vae=vae)
    allowed = tmp_path / ("output" if keep else "temp")
    assert allowed in Path(file).parents
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 8  # the view, its data, plot and animation, and two pictures of each step
    assert all(allowed in path.parents for path in written)


@pytest.mark.host
def test_the_server_refuses_such_names_and_goes_on(server, tmp_path):
    graph = json.loads(json.dumps(TWIN))
    (loader,) = (node for node in graph.values() if node["class_type"] == "TCD_LoraLoader")
    shutil.copyfile(EMBEDDED, tmp_path / OUTSIDE)
    for kind in LEADS_OUT.keys() - {"no_unicode"}:  # which JSON cannot hold
        loader["inputs"]["lora"] = LEADS_OUT[kind].format(folder=tmp_path)
        with pytest.raises(client.WorkflowError, match="lora"):
            client.run_workflow(server, graph)
    assert client.run_workflow(server, TWIN)


def get(server: str, path: str) -> tuple[int, bytes]:
    """(status, body) of a path as it is: nothing here resolves its dots."""
    address = urlsplit(server)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.host
def test_the_server_hands_out_nothing_of_the_pack_but_its_front_end(server):
    (script,) = (path for path in json.loads(get(server, "/extensions")[1]) if path.endswith("/js/report.js"))
    assert get(server, script)[0] == 200
    web = script.removesuffix("/js/report.js")
    for path in ("/../pyproject.toml", "/js/../../pyproject.toml", "/%2e%2e/pyproject.toml", "/..%2fpyproject.toml"):
        assert get(server, web + path)[0] in (403, 404)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_run_is_named_like_a_file_of_its_folder(name):
    with pytest.raises(
        ValueError, match="output_name must be the name of a file, of at most 200 bytes and without a folder"
    ):
        check_name("output_name", name)


@pytest.mark.parametrize("name", ["new", "my lora v1.2", "..new", "n" * 200, "\u00e9t\u00e9"])
def test_other_names_of_runs_are_allowed(name):
    check_name("output_name", name)


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", "a:b", "a\nb"])
def test_a_row_of_the_evaluator_is_a_folder_of_its_own(name, tmp_path):
    shutil.copyfile(EMBEDDED, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="its name must be the name of a file"):
        lora_file(f"{name}={tmp_path / 'lora.safetensors'}")


def test_saving_does_not_write_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("mine", encoding="utf-8")
    (tmp_path / "new.txt").symlink_to(tmp_path / "precious")
    save.replace(tmp_path / "new.txt", lambda scratch: scratch.write_text("made", encoding="utf-8"))
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "new.txt").read_text(encoding="utf-8") == "made"
    assert not (tmp_path / "new.txt").is_symlink()
