"""TCD_LoraLoader against ComfyUI's own LoraLoader and against tcd.lora, on the tiny model and its LoRA."""

import logging

import pytest
import torch
from host_process import ROOT, far, module, pack, run, sample, sigmas, tcd_sampler
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
    pack()
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


@pytest.fixture
def strong(loras):
    """A LoRA for the same layers that changes the pictures a lot, whatever the embedded one does."""
    state, generator = load_file(EMBEDDED), torch.Generator().manual_seed(2)
    for key in (key for key in state if key.endswith("lora_up.weight")):
        state[key] = (torch.randn(state[key].shape, generator=generator) * 0.02).half()
    save_file(state, loras / "strong.safetensors")
    return "strong.safetensors"


def test_the_embedded_lora_gives_the_same_through_the_stock_loader(tiny, cond):
    ours, _ = run("TCD_LoraLoader", model=tiny[0], lora=LORA, strength=1.0)
    stock, _ = run("LoraLoader", model=tiny[0], clip=tiny[1], lora_name=LORA, strength_model=1.0, strength_clip=1.0)
    assert torch.equal(drawn(ours, cond), drawn(stock, cond))
    assert not torch.equal(drawn(ours, cond), drawn(tiny[0], cond))


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_the_stock_loader_gives_the_same_model(model, cond, strong, strength):
    ours, _ = run("TCD_LoraLoader", model=model, lora=strong, strength=strength)
    (stock,) = run("LoraLoaderModelOnly", model=model, lora_name=strong, strength_model=strength)
    assert torch.equal(drawn(ours, cond), drawn(stock, cond))
    assert far(drawn(ours, cond), drawn(model, cond)) > 0.01


def test_every_key_matches(model, caplog):
    modules = {key.split(".")[0] for key in load_file(EMBEDDED)}
    with caplog.at_level(logging.WARNING):
        patched, report = run("TCD_LoraLoader", model=model, lora=LORA, strength=1.0)
        run("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=1.0)
    assert caplog.messages == []
    assert report.startswith(f"{LORA}: {len(modules)} of {len(modules)} modules matched; base TinyConfig, rank ")
    assert len(patched.patches) == len(modules)


def test_the_adapter_beside_the_network_gives_the_same(model, cond, strong, loras):
    patched, _ = run("TCD_LoraLoader", model=model, lora=strong, strength=1.0)
    wanted = drawn(patched, cond)
    bare = run("TCD_TinyLoader")[0]
    tcd.lora.load(loras / strong, bare.model.diffusion_model)
    assert far(drawn(bare, cond), wanted) < 1e-4


def test_the_model_that_came_in_is_left_as_it_was(model, cond, strong):
    before = drawn(model, cond)
    weights = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    patched, _ = run("TCD_LoraLoader", model=model, lora=strong, strength=1.0)
    assert model.patches == {}
    drawn(patched, cond)
    assert torch.equal(drawn(model, cond), before)
    assert all(torch.equal(weights[key], weight) for key, weight in model.model.state_dict().items())


def test_loras_stack(model, cond, strong):
    once, _ = run("TCD_LoraLoader", model=model, lora=strong, strength=1.0)
    half, _ = run("TCD_LoraLoader", model=model, lora=strong, strength=0.5)
    both, _ = run("TCD_LoraLoader", model=half, lora=strong, strength=0.5)
    assert far(drawn(both, cond), drawn(once, cond)) < 1e-4


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


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("lora_unet_mid_lora", ["lora_down.weight", "lora_up.weight", "alpha", "dora_scale"]),
        ("unet.mid.to_q", ["lora.down.weight", "lora.up.weight"]),
        ("diffusion_model.mid.to_q", ["lora_A.weight", "lora_B.weight", "alpha"]),
        ("diffusion_model.norm", ["diff", "diff_b"]),
        ("lora_unet_mid", ["hada_w1_a", "hada_w1_b", "lokr_w1", "oft_blocks"]),
    ],
)
def test_the_parts_of_a_module_are_counted_once(name, parts):
    assert module("lora").modules_of([f"{name}.{part}" for part in parts]) == {name}


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
