"""LoRA files that are broken, that lie, and that hold what no network should get, as `tcd.lora` reads them."""

from io import BytesIO

import pytest
import torch
from fuzz.lora_files import file_of
from fuzz.mutations import seeds
from fuzz.rule import refused_or_right
from fuzz.safetensors_files import packed, said
from lora_nets import Net
from torch import Tensor

import tcd
from training.evaluate import loras

pytestmark = pytest.mark.slow

LAYERS = {name: layer.weight.shape for name, layer in tcd.lora.adaptable(Net()).items()}


def check_read(content: bytes, found: tuple[dict[str, Tensor], dict[str, str]]) -> None:
    """What was read is what the header says, all of it finite."""
    state, _ = found
    wanted = said(content)
    assert state.keys() == wanted.keys()
    for key, tensor in state.items():
        assert tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == wanted[key]
        assert bool(tensor.isfinite().all())


def test_a_file_is_read_as_it_says_or_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for chance in seeds("lora file", 5000):
        content = file_of(LAYERS, chance)
        path.write_bytes(content)
        refused_or_right(
            "LoRA file", lambda: tcd.lora.read(path), lambda found, c=content: check_read(c, found), [str(path)]
        )


def pickled(content: object) -> bytes:
    made = BytesIO()
    torch.save(content, made)
    return made.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"{}", pickled({"a": torch.ones(2)}), packed("{}", b""), packed("[]", b""), packed("{" * 9999, b"")],
    ids=["empty", "one byte", "JSON", "pickle", "no tensors", "list", "braces"],
)
def test_what_is_no_lora_file_is_not_put_on_a_network(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        tcd.lora.load(path, Net())


def check_loaded(net: Net, content: bytes, before: Tensor, adapter: tcd.lora.Lora) -> None:
    """Every module of the file is on the network or named as skipped, and what it adds is finite."""
    modules = {key.rpartition(".lora_")[0] for key in said(content) if ".lora_down" in key}
    assert len(adapter.layers) + len(adapter.skipped) >= len({module for module in modules if module})
    x = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    assert bool(net(x).isfinite().all())
    adapter.remove()
    assert torch.equal(net(x), before)


def test_a_file_is_put_on_a_network_whole_or_refused(tmp_path):
    path, net = tmp_path / "a.safetensors", Net()
    x = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    with torch.no_grad():
        before = net(x)
        for chance in seeds("lora load", 3000):
            content = file_of(LAYERS, chance)
            path.write_bytes(content)
            if not refused_or_right(
                "LoRA on a network",
                lambda: tcd.lora.load(path, net),
                lambda adapter, c=content: check_loaded(net, c, before, adapter),
                [str(path)],
            ):
                assert torch.equal(net(x), before)


def check_to_evaluate(found: loras.LoraFile) -> None:
    assert 0 <= found.gamma <= 1
    assert found.tcf in tcd.TCF


def test_a_file_to_evaluate_says_how_to_sample_it_or_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for chance in seeds("lora evaluate", 2000):
        path.write_bytes(file_of(LAYERS, chance))
        refused_or_right("LoRA to evaluate", lambda: loras.lora_file(str(path)), check_to_evaluate, [str(path)])
