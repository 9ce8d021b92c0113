"""TCD_LoraLoader against ComfyUI's own LoraLoader and against tcd.lora, on the tiny model and its LoRA."""

import logging

import pytest
import torch
from host_process import ROOT, far, run, sample, sigmas, tcd_sampler
from safetensors.torch import load_file, save_file

import tcd

pytestmark = pytest.mark.host

LORA = "tcd_tiny_lora.safetensors"
EMBEDDED = ROOT / "demo" / "loras" / LORA


def drawn(model, cond):
    """What the model samples without noise: it tells any two sets of weights apart."""
    return sample(model, cond, tcd_sampler(gamma=0.0), sigmas(model))


@pytest.fixture
def loras(tmp_path, monkeypatch):
    """A folder of LoRAs that ComfyUI looks into."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_stock_loaders_give_the_same_model(tiny, cond, strength):
    model, clip, _ = tiny
    ours, _ = run("TCD_LoraLoader", model=model, lora=LORA, strength=strength)
    stock, _ = run(
        "LoraLoader", model=model, clip=clip, lora_name=LORA, strength_model=strength, strength_clip=strength
    )
    got = drawn(ours, cond)
    assert torch.equal(got, drawn(stock, cond))
    assert far(got, drawn(model, cond)) > 1e-4  # the LoRA does something at all


def test_every_key_matches(model, caplog):
    modules = {key.split(".")[0] for key in load_file(EMBEDDED)}
    with caplog.at_level(logging.WARNING):
        patched, report = run("TCD_LoraLoader", model=model, lora=LORA, strength=1.0)
        run("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=1.0)
    assert caplog.messages == []
    assert report.startswith(f"{LORA}: {len(modules)} of {len(modules)} modules matched; base TinyConfig, rank ")
    assert len(patched.patches) == len(modules)


def test_the_adapter_beside_the_network_gives_the_same(tiny, cond):
    patched, _ = run("TCD_LoraLoader", model=tiny[0], lora=LORA, strength=1.0)
    wanted = drawn(patched, cond)
    bare = run("TCD_TinyLoader")[0]
    adapter = tcd.lora.load(EMBEDDED, bare.model.diffusion_model)
    assert far(drawn(bare, cond), wanted) < 1e-4
    adapter.remove()


def test_the_model_that_came_in_is_left_as_it_was(model, cond):
    before, weights = drawn(model, cond), {k: v.clone() for k, v in model.model.state_dict().items()}
    patched, _ = run("TCD_LoraLoader", model=model, lora=LORA, strength=1.0)
    assert patched is not model
    assert model.patches == {}
    drawn(patched, cond)
    assert torch.equal(drawn(model, cond), before)
    assert all(torch.equal(weights[k], v) for k, v in model.model.state_dict().items())


def test_loras_stack(model, cond):
    once, _ = run("TCD_LoraLoader", model=model, lora=LORA, strength=1.0)
    halves, _ = run("TCD_LoraLoader", model=model, lora=LORA, strength=0.5)
    halves, _ = run("TCD_LoraLoader", model=halves, lora=LORA, strength=0.5)
    assert far(drawn(halves, cond), drawn(once, cond)) < 1e-4


def test_a_lora_of_another_model_is_refused(model, loras):
    other = {"lora_unet_elsewhere.lora_down.weight": torch.ones(2, 4), "lora_unet_elsewhere.alpha": torch.tensor(2.0)}
    save_file(other, loras / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: none of its 1 modules.*'lora_unet_elsewhere\.alpha'"):
        run("TCD_LoraLoader", model=model, lora="other.safetensors", strength=1.0)


def test_a_file_without_tensors_is_refused(model, loras):
    save_file({}, loras / "empty.safetensors")
    with pytest.raises(ValueError, match=r"empty\.safetensors: none of its 0 modules"):
        run("TCD_LoraLoader", model=model, lora="empty.safetensors", strength=1.0)


def test_a_lora_that_fits_in_part_says_so(model, loras, caplog):
    state = load_file(EMBEDDED)
    modules = len({key.split(".")[0] for key in state})
    save_file(
        state | {"lora_te_x.lora_down.weight": torch.ones(2, 4), "lora_te_x.lora_up.weight": torch.ones(4, 2)},
        loras / "partly.safetensors",
    )
    _, report = run("TCD_LoraLoader", model=model, lora="partly.safetensors", strength=1.0)
    assert report.startswith(f"partly.safetensors: {modules} of {modules + 1} modules matched")
    assert report in caplog.text


@pytest.mark.parametrize("content", [b"", b"not a LoRA", b"\xff" * 100], ids=["empty", "text", "bytes"])
def test_a_corrupt_file_is_named(model, loras, content):
    (loras / "broken.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.safetensors is not a readable safetensors file"):
        run("TCD_LoraLoader", model=model, lora="broken.safetensors", strength=1.0)


def test_a_truncated_file_is_named(model, loras):
    (loras / "half.safetensors").write_bytes(EMBEDDED.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"half\.safetensors is not a readable safetensors file"):
        run("TCD_LoraLoader", model=model, lora="half.safetensors", strength=1.0)


@pytest.mark.parametrize("name", ["lora.pt", "lora.ckpt", "safetensors"])
def test_other_formats_are_refused(model, name):
    with pytest.raises(ValueError, match=rf"{name}: only \.safetensors files are read"):
        run("TCD_LoraLoader", model=model, lora=name, strength=1.0)


def test_a_missing_file_is_named(model, loras):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        run("TCD_LoraLoader", model=model, lora="gone.safetensors", strength=1.0)
