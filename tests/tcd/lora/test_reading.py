"""One adapter in the words of every tool: they all give the same network, and what does not fit is refused whole."""

import json
import math
import shutil

import pytest
import torch
from lora_nets import LAYERS, Net, parts_of, plain, weight_of
from safetensors.torch import load_file, save_file
from torch import nn

from tcd import lora

RANK = 2
KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight"}
PEFT = {"down": "lora_A.weight", "up": "lora_B.weight"}
NAMED_PEFT = {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
DIFFUSERS = {"down": "lora.down.weight", "up": "lora.up.weight"}
# What comes before the module's name, whether that has dots, and what the parts are called
NAMINGS = {
    "kohya": ("lora_unet_", False, KOHYA),
    "lycoris": ("lycoris_", False, KOHYA),
    "peft": ("base_model.model.", True, PEFT),
    "peft-named": ("base_model.model.", True, NAMED_PEFT),
    "diffusers": ("unet.", True, PEFT),
    "diffusers-transformer": ("transformer.", True, PEFT),
    "diffusers-old": ("unet.", True, DIFFUSERS),
    "comfyui": ("diffusion_model.", True, PEFT),
    "bare": ("", True, DIFFUSERS),
}


@pytest.fixture
def layers(net) -> dict[str, dict[str, torch.Tensor]]:
    """Random down and up by module."""
    found = {}
    for seed, name in enumerate(LAYERS):
        parts = parts_of("lora", weight_of(net, name).shape, RANK, seed=seed)
        found[name] = {"down": parts["lora_down.weight"], "up": parts["lora_up.weight"]}
    return found


def in_words(naming: str, layers: dict, alpha: float | None = None) -> dict[str, torch.Tensor]:
    before, dots, words = NAMINGS[naming]
    state = {}
    for name, parts in layers.items():
        module = before + (name if dots else name.replace(".", "_"))
        state |= {f"{module}.{words[part]}": tensor for part, tensor in parts.items()}
        if alpha is not None:
            state[f"{module}.alpha"] = torch.tensor(alpha)
    return state


def moved(net: nn.Module, layers: dict, scale: float) -> nn.Module:
    """A copy of the network with the dense differences in its weights."""
    twin = Net()
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        for name, parts in layers.items():
            weight = weight_of(twin, name)
            weight += scale * torch.einsum("or,ri->oi", parts["up"].flatten(1), parts["down"].flatten(1)).view_as(
                weight
            )
    return twin


def check_scale(net, x, layers, path, scale) -> lora.Lora:
    wanted, before = moved(net, layers, scale)(x), net(x)
    assert not torch.allclose(before, wanted, atol=0.01)
    adapter = lora.load(path, net)
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=1e-4)
    return adapter


# --- the words of every tool ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("alpha", [None, 5.0])
def test_every_naming_gives_the_same_adapter(net, x, layers, tmp_path, naming, alpha):
    save_file(in_words(naming, layers, alpha), tmp_path / "a")
    adapter = check_scale(net, x, layers, tmp_path / "a", 1.0 if alpha is None else alpha / RANK)
    assert set(adapter.names.values()) == set(LAYERS)
    lora.save(tmp_path / "b", adapter, dtype=torch.float32)
    kohya = in_words("kohya", layers, float(RANK) if alpha is None else alpha)
    again = load_file(tmp_path / "b")
    assert again.keys() == kohya.keys()
    assert all(torch.equal(again[key], kohya[key]) for key in kohya)


class Attention(nn.Module):
    """The layers of diffusers' attention, whose way out is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1 = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("to_q", "to_k", "to_v")})
        self.attn1["to_out"] = nn.ModuleList([nn.Linear(4, 4), nn.Dropout(0.0)])


def test_diffusers_old_attention_processors_are_the_attention_s_layers(tmp_path):
    state, wanted = {}, {}
    for seed, (theirs, ours) in enumerate(
        {"to_q": "attn1.to_q", "to_k": "attn1.to_k", "to_v": "attn1.to_v", "to_out": "attn1.to_out.0"}.items()
    ):
        parts = parts_of("lora", torch.Size([4, 4]), RANK, seed=seed)
        down, up = parts["lora_down.weight"], parts["lora_up.weight"]
        state |= {f"unet.attn1.processor.{theirs}_lora.{way}.weight": t for way, t in (("down", down), ("up", up))}
        wanted[ours] = up @ down
    save_file(state, tmp_path / "a")
    adapter = lora.load(tmp_path / "a", Attention())
    assert set(adapter.names.values()) == wanted.keys()
    for key, path in adapter.paths.items():
        torch.testing.assert_close(path.delta(), wanted[adapter.names[key]], rtol=0, atol=1e-6)


class Block(nn.Module):
    def __init__(self, **layers: nn.Module):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Ldm(nn.Module):
    """Three blocks of a UNet, of LDM's names: the stem, a resnet and a downsampler."""

    def __init__(self) -> None:
        super().__init__()
        resnet = Block(in_layers=nn.Sequential(nn.GroupNorm(1, 4), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1)))
        self.input_blocks = nn.ModuleList(
            [
                nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1)]),
                nn.ModuleList([resnet]),
                nn.ModuleList([Block(op=nn.Conv2d(4, 4, 3, stride=2))]),
            ]
        )


THEIRS = {
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
}


@pytest.mark.parametrize("naming", ["kohya", "lycoris", "peft", "diffusers", "diffusers-old", "bare"])
def test_diffusers_names_are_translated_to_those_of_ldm(tmp_path, naming):
    net, layers = Ldm(), {}
    for seed, (theirs, ours) in enumerate(THEIRS.items()):
        parts = parts_of("lora", weight_of(net, ours).shape, RANK, seed=seed)
        layers[theirs] = {"down": parts["lora_down.weight"], "up": parts["lora_up.weight"]}
    save_file(in_words(naming, layers), tmp_path / "a")
    adapter = lora.load(tmp_path / "a", net)
    downs = dict(zip(adapter.names.values(), (path.down for path in plain(adapter)), strict=True))
    assert downs.keys() == set(THEIRS.values())
    assert all(torch.equal(downs[ours], layers[theirs]["down"]) for theirs, ours in THEIRS.items())


# --- the scale of PEFT ------------------------------------------------------------------------------------------------


def test_peft_s_config_beside_the_file_tells_alpha(net, x, layers, tmp_path):
    save_file(in_words("peft", layers), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 7, "peft_type": "LORA"}))
    check_scale(net, x, layers, tmp_path / "adapter_model.safetensors", 7 / RANK)


def test_diffusers_metadata_tells_alpha_of_the_unet(net, x, layers, tmp_path):
    packed = {"unet.lora_alpha": 5, "unet.r": RANK, "text_encoder.lora_alpha": 100, "text_encoder.r": 64}
    save_file(in_words("diffusers", layers), tmp_path / "a", {"lora_adapter_metadata": json.dumps(packed)})
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1000}')  # of less weight than the file itself
    check_scale(net, x, layers, tmp_path / "a", 5 / RANK)


def test_plain_metadata_tells_alpha(net, x, layers, tmp_path):
    save_file(in_words("peft", layers), tmp_path / "a", {"lora_alpha": "6", "format": "pt"})
    check_scale(net, x, layers, tmp_path / "a", 6 / RANK)


def test_alpha_in_the_file_comes_first(net, x, layers, tmp_path):
    save_file(in_words("peft", layers, 3.0), tmp_path / "a", {"lora_alpha": "100"})
    check_scale(net, x, layers, tmp_path / "a", 3 / RANK)


def test_rank_stabilised_lora_divides_by_the_root(net, x, layers, tmp_path):
    save_file(in_words("peft", layers), tmp_path / "a")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 3, "use_rslora": True}))
    check_scale(net, x, layers, tmp_path / "a", 3 / math.sqrt(RANK))


def test_layers_may_have_an_alpha_of_their_own(net, layers, tmp_path):
    save_file(in_words("peft", layers), tmp_path / "a")
    config = {"r": RANK, "lora_alpha": 4, "alpha_pattern": {"blocks.0.0": 10, "hea": 50, "^.*stem": 20}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = lora.load(tmp_path / "a", net)
    alphas = {adapter.names[key]: path.alpha for key, path in adapter.paths.items()}
    assert alphas == {"stem": 20, "blocks.0.0": 10, "around": 4, "point": 4, "head": 4}


@pytest.mark.parametrize("naming", ["kohya", "diffusers-old"])
def test_a_config_beside_a_file_of_another_tool_says_nothing(net, x, layers, tmp_path, naming):
    save_file(in_words(naming, layers), tmp_path / "a")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 100, "peft_type": "LOHA"}')
    check_scale(net, x, layers, tmp_path / "a", 1.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"adapter_config.json is no JSON"),
        ("[1]", r"adapter_config.json must be a JSON object, got list"),
        ('{"peft_type": "LOHA", "alpha": 3}', r"PEFT's LOHA is not supported, only LORA"),
        ('{"lora_alpha": 3, "r": 64}', r"base_model.model.\w+ is of rank 2, PEFT's settings of rank 64"),
        ('{"lora_alpha": "much"}', r"base_model.model.\w+: PEFT's alpha must be a finite number, got 'much'"),
        ('{"lora_alpha": [1]}', r"PEFT's alpha must be a finite number, got \[1\]"),
        ('{"alpha_pattern": [1]}', r"PEFT's alpha_pattern must be a JSON object, got \[1\]"),
        ('{"alpha_pattern": {"(": 1}}', r"base_model.model.\w+: PEFT's alpha_pattern: '\(' is no pattern"),
        ('{"alpha_pattern": {"(a+)+": 1}}', r"PEFT's alpha_pattern: '\(a\+\)\+' repeats more than one character"),
        ('{"lora_alpha": NaN}', r"PEFT's alpha must be a finite number, got nan"),
    ],
)
def test_settings_of_no_use_are_named(net, x, layers, tmp_path, config, message):
    save_file(in_words("peft", layers), tmp_path / "a")
    (tmp_path / "adapter_config.json").write_text(config)
    check_refused(net, x, tmp_path / "a", message)


# --- text encoders ----------------------------------------------------------------------------------------------------


def test_what_belongs_to_a_text_encoder_is_skipped_and_named(net, x, layers, tmp_path):
    """Also where it is of a kind that would be refused: it is not looked into."""
    text = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 7),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(()),
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.oft_blocks": torch.ones(1),
    }
    save_file(in_words("kohya", layers) | text, tmp_path / "a")
    adapter = check_scale(net, x, layers, tmp_path / "a", 1.0)
    assert adapter.skipped == (
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
    )


def test_a_text_encoder_has_an_alpha_of_its_own(net, x, layers, tmp_path):
    module = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    text = {f"{module}.lora_A.weight": torch.ones(8, 7), f"{module}.lora_B.weight": torch.ones(7, 8)}
    packed = {"unet.lora_alpha": 5, "unet.r": RANK, "text_encoder.lora_alpha": 100, "text_encoder.r": 8}
    metadata = {"lora_adapter_metadata": json.dumps(packed)}
    save_file(in_words("diffusers", layers) | text, tmp_path / "a", metadata)
    assert check_scale(net, x, layers, tmp_path / "a", 5 / RANK).skipped == (module,)
    state, _ = lora.read(tmp_path / "a")
    modules = lora.modules_of(state, tmp_path / "a", metadata)
    assert {name: parts["alpha"].item() for name, parts in modules.items() if name in (module, "unet.stem")} == {
        module: 100,
        "unet.stem": 5,
    }


def test_a_layer_of_the_network_is_none_of_a_text_encoder(tmp_path):
    net = nn.ModuleDict({"text_model": nn.ModuleDict({"fc": nn.Linear(4, 4)})})
    state = {f"text_model.fc.{part}": tensor for part, tensor in parts_of("lora", torch.Size([4, 4])).items()}
    save_file(state, tmp_path / "a")
    adapter = lora.load(tmp_path / "a", net)
    assert (list(adapter.names.values()), adapter.skipped) == (["text_model.fc"], ())


# --- what is refused --------------------------------------------------------------------------------------------------


def check_refused(net, x, path, message) -> None:
    """The message names the file, and nothing has changed, also of an adapter that was there before."""
    first = lora.inject(net, RANK)
    before, adapted = net(x), sum("forward" in vars(module) for module in net.modules())
    with pytest.raises(ValueError, match=message) as error:
        lora.load(path, net)
    assert str(error.value).startswith(f"{path}: ")
    assert torch.equal(net(x), before)
    assert sum("forward" in vars(module) for module in net.modules()) == adapted
    first.remove()


def stem(part: str, *shape: int):
    return lambda state: state.update({f"lora_unet_stem.{part}": torch.ones(shape)})


def only(**tensors: torch.Tensor):
    def spoil(state):
        state.clear()
        state.update({key.replace("__", "."): tensor for key, tensor in tensors.items()})

    return spoil


ONE = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (only(), "holds no LoRA keys: nothing for this network"),
        (only(lora_te_x__lora_down__weight=ONE), "holds a text encoder alone: nothing for this network"),
        (only(down__lora_A__weight=ONE), r"1 of 1 modules are not in this network: \['down'\]"),
        (only(down__weight=ONE), "down.weight is no LoRA key of kohya, LyCORIS, PEFT or diffusers"),
        (lambda state: state.update({"stem.lora_A.a.weight": ONE, "stem.lora_A.b.weight": ONE + 1}), "twice"),
        (lambda state: state.update({"unet.stem.lora_A.weight": ONE}), "are the same layer of this network, stem"),
        (lambda state: state.update({"lora_unet_depthwise.alpha": ONE}), r"1 of 6 modules .*'lora_unet_depthwise'"),
        (lambda state: state.update({"lora_unet_norm.w_norm": ONE}), r"1 of 6 modules .*'lora_unet_norm'"),
        (lambda state: state.update({"lora_unet_elsewhere.lora_up.weight": ONE}), r"1 of 6 modules .*elsewhere"),
        (lambda state: state.pop("lora_unet_stem.lora_up.weight"), r"stem: has \['lora_down.weight'\], which make no"),
        (lambda state: state.pop("lora_unet_stem.lora_down.weight"), r"stem: has \['lora_up.weight'\], which make no"),
        (stem("diff", 8), r"lora_unet_stem: has \['diff', .*, which make no whole layer of LoRA lora_down.weight"),
        (stem("hada_w1_a", 8, 2), r"lora_unet_stem: has .*hada_w1_a.* make no .*; LoHa hada_w1_a, .*; LoKr lokr_w1,"),
        (stem("dora_scale", 8), r"lora_unet_stem: has dora_scale: DoRA is not supported"),
        (stem("alpha", 2), r"lora_unet_stem: alpha must be one finite number, got a tensor of shape \(2,\)"),
        (
            stem("lora_down.weight", 2, 5, 3, 3),
            r"lora_unet_stem: lora_down.weight has shape \(2, 5, 3, 3\), this layer wants \(2, 3, 3, 3\)",
        ),
        (stem("lora_down.weight", 3, 3, 3, 3), r"lora_unet_stem: lora_up.weight has shape .*wants \(8, 3, 1, 1\)"),
        (stem("lora_down.weight", 0, 3, 3, 3), r"lora_unet_stem.lora_down.weight is empty, of shape \(0, 3"),
        (stem("lora_down.weight"), r"lora_unet_stem: lora_down.weight has shape \(\)"),
        (stem("lora_up.weight", 8, 2), r"lora_unet_stem: lora_up.weight has shape \(8, 2\).* wants \(8, 2, 1, 1\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(net, x, layers, tmp_path, spoil, message):
    state = in_words("kohya", layers)
    spoil(state)
    save_file(state, tmp_path / "a.safetensors")
    check_refused(net, x, tmp_path / "a.safetensors", message)


def test_a_file_that_fits_another_network_is_refused(net, x, layers, tmp_path):
    save_file(in_words("kohya", layers), tmp_path / "a")
    shutil.copy(tmp_path / "a", tmp_path / "b")
    check_refused(nn.Sequential(nn.Flatten(), nn.Linear(243, 2)), x, tmp_path / "b", r"5 of 5 modules are not in this")
