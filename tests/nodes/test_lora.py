"""TCD_LoraLoader against ComfyUI's own LoraLoader and against tcd.lora, on the tiny model and its LoRA."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from host_process import ROOT, far, module, pack, run, sample, sigmas, tcd_sampler
from lora_nets import CORES, parts_of
from safetensors.torch import load_file, save_file

import tcd
from tcd import embed
from tcd.lora import ldm

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
    ours, *_ = run("TCD_LoraLoader", model=tiny[0], lora=LORA, strength=1.0)
    stock, _ = run("LoraLoader", model=tiny[0], clip=tiny[1], lora_name=LORA, strength_model=1.0, strength_clip=1.0)
    assert torch.equal(drawn(ours, cond), drawn(stock, cond))
    assert not torch.equal(drawn(ours, cond), drawn(tiny[0], cond))


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_the_stock_loader_gives_the_same_model(model, cond, strong, strength):
    ours, *_ = run("TCD_LoraLoader", model=model, lora=strong, strength=strength)
    (stock,) = run("LoraLoaderModelOnly", model=model, lora_name=strong, strength_model=strength)
    assert torch.equal(drawn(ours, cond), drawn(stock, cond))
    assert far(drawn(ours, cond), drawn(model, cond)) > 0.01


def test_every_key_matches(model, caplog):
    modules = {key.split(".")[0] for key in load_file(EMBEDDED)}
    with caplog.at_level(logging.WARNING):
        patched, *_, report = run("TCD_LoraLoader", model=model, lora=LORA, strength=1.0)
        run("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=1.0)
    assert caplog.messages == []
    assert report.startswith(f"{LORA}: {len(modules)} of {len(modules)} modules matched; base TinyConfig, rank ")
    assert len(patched.patches) == len(modules)


def test_the_adapter_beside_the_network_gives_the_same(model, cond, strong, loras):
    patched, *_ = run("TCD_LoraLoader", model=model, lora=strong, strength=1.0)
    wanted = drawn(patched, cond)
    bare = run("TCD_TinyLoader")[0]
    tcd.lora.load(loras / strong, bare.model.diffusion_model)
    assert far(drawn(bare, cond), wanted) < 1e-4


def test_the_model_that_came_in_is_left_as_it_was(model, cond, strong):
    before = drawn(model, cond)
    weights = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    patched, *_ = run("TCD_LoraLoader", model=model, lora=strong, strength=1.0)
    assert model.patches == {}
    drawn(patched, cond)
    assert torch.equal(drawn(model, cond), before)
    assert all(torch.equal(weights[key], weight) for key, weight in model.model.state_dict().items())


def test_loras_stack(model, cond, strong):
    once, *_ = run("TCD_LoraLoader", model=model, lora=strong, strength=1.0)
    half, *_ = run("TCD_LoraLoader", model=model, lora=strong, strength=0.5)
    both, *_ = run("TCD_LoraLoader", model=half, lora=strong, strength=0.5)
    assert far(drawn(both, cond), drawn(once, cond)) < 1e-4


# --- every tool's names -----------------------------------------------------------------------------------------------


def layers_of(model) -> dict[str, tuple[str, torch.Size]]:
    """The network's layers -> diffusers' name and shape of the weight."""
    net = model.model.diffusion_model
    theirs = {ours: name for name, ours in ldm.diffusers_names(name for name, _ in net.named_modules()).items()}
    return {name: (theirs[name], layer.weight.shape) for name, layer in tcd.lora.adaptable(net).items()}


def underscored(before: str, name: str) -> str:
    return before + name.replace(".", "_")


def processor(theirs: str) -> str:
    """diffusers' old name of an attention's layer, before it has an underscore; others keep theirs."""
    before, _, last = theirs.rpartition(".to_")
    return f"unet.{before}.processor.to_{last.removesuffix('.0')}_lora" if before else f"unet.{theirs}.lora"


KOHYA, PEFT = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")
OLD, NAMED = ("down.weight", "up.weight"), ("lora_A.mine.weight", "lora_B.mine.weight")
# Naming -> (own name, diffusers' name -> the module; what down and up are called)
NAMINGS = {
    "kohya": (lambda ours, theirs: underscored("lora_unet_", ours), KOHYA),
    "kohya-diffusers": (lambda ours, theirs: underscored("lora_unet_", theirs), KOHYA),
    "lycoris": (lambda ours, theirs: underscored("lycoris_", ours), KOHYA),
    "comfyui": (lambda ours, theirs: f"diffusion_model.{ours}", PEFT),
    "diffusers": (lambda ours, theirs: f"unet.{theirs}", PEFT),
    "diffusers-processors": (lambda ours, theirs: processor(theirs), OLD),
    "peft": (lambda ours, theirs: f"base_model.model.{theirs}", PEFT),
    "peft-own": (lambda ours, theirs: f"base_model.model.{ours}", PEFT),
    "peft-named": (lambda ours, theirs: f"base_model.model.{theirs}", NAMED),
}


def written(model, naming: str, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for every layer of the model, in the words of a tool."""
    name, words = NAMINGS[naming]
    state = {}
    for seed, (ours, (theirs, shape)) in enumerate(layers_of(model).items()):
        module, parts = name(ours, theirs), parts_of("lora", shape, seed=seed)
        state |= {
            f"{module}.{words[0]}": 0.3 * parts["lora_down.weight"],
            f"{module}.{words[1]}": parts["lora_up.weight"],
        }
        if alpha is not None:
            state[f"{module}.alpha"] = torch.tensor(alpha)
    return state


def check_like_tcd(model, cond, path) -> str:
    """The loader's model draws what the network with the adapter of tcd.lora draws; gives the report."""
    patched, *_, report = run("TCD_LoraLoader", model=model, lora=path.name, strength=1.0)
    wanted = drawn(patched, cond)
    assert far(wanted, drawn(model, cond)) > 0.01
    bare = run("TCD_TinyLoader")[0]
    tcd.lora.load(path, bare.model.diffusion_model)
    assert far(drawn(bare, cond), wanted) < 1e-3  # the same sums in another order, of four steps
    return report


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_is_read_whole(model, cond, loras, naming, caplog):
    state = written(model, naming)
    save_file(state, loras / "a.safetensors")
    with caplog.at_level(logging.WARNING):
        report = check_like_tcd(model, cond, loras / "a.safetensors")
    assert report.startswith(f"a.safetensors: {len(state) // 2} of {len(state) // 2} modules matched; rank 2, ")
    assert caplog.messages == []


def test_the_namings_are_one_lora(model, cond, loras):
    """That tcd.lora and the loader agree would not tell if both were wrong."""
    pictures = []
    for naming in ("kohya", "peft-named", "diffusers-processors"):
        save_file(written(model, naming), loras / "a.safetensors")
        patched, *_ = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
        pictures.append(drawn(patched, cond))
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 100.0])
def test_alpha_scales(model, cond, loras, alpha):
    state = {key: tensor * (0.1 if "lora_up" in key else 1) for key, tensor in written(model, "kohya", alpha).items()}
    state["lora_unet_out_2.alpha"] = torch.tensor(6.0)  # one has to do something
    save_file(state, loras / "a.safetensors")
    check_like_tcd(model, cond, loras / "a.safetensors")


def test_peft_s_alpha_is_in_the_metadata_or_beside_the_file(model, cond, loras):
    packed = {"unet.lora_alpha": 5, "unet.r": 2, "text_encoder.lora_alpha": 9, "text_encoder.r": 64}
    save_file(written(model, "diffusers"), loras / "a.safetensors", {"lora_adapter_metadata": json.dumps(packed)})
    check_like_tcd(model, cond, loras / "a.safetensors")
    packed, *_ = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
    save_file(written(model, "peft-named"), loras / "b.safetensors")
    (loras / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 5, "peft_type": "LORA"}))
    beside, *_ = run("TCD_LoraLoader", model=model, lora="b.safetensors", strength=1.0)
    save_file(written(model, "kohya", alpha=5.0), loras / "c.safetensors")
    wanted, *_ = run("TCD_LoraLoader", model=model, lora="c.safetensors", strength=1.0)
    assert torch.equal(drawn(packed, cond), drawn(wanted, cond))
    assert torch.equal(drawn(beside, cond), drawn(wanted, cond))


@pytest.mark.parametrize("kind", ["loha", "lokr-whole-whole", "lokr-product-product", "lora-mid"])
def test_lycoris_kinds_are_read(model, cond, loras, kind):
    state = {}
    for seed, (ours, (_, shape)) in enumerate(layers_of(model).items()):
        if kind not in CORES or len(shape) == 4:
            parts = parts_of(kind, shape, alpha=0.3, seed=seed)
            state |= {f"{tcd.lora.kohya_name(ours)}.{part}": tensor for part, tensor in parts.items()}
    save_file(state, loras / "a.safetensors")
    check_like_tcd(model, cond, loras / "a.safetensors")


def test_a_1x1_convolution_may_be_held_as_a_matrix(model, cond, loras):
    """And the other way round: Stable Diffusion 2's LoRAs of old have it so."""
    state = written(model, "kohya")
    (point,) = {name for name, (_, shape) in layers_of(model).items() if shape[2:] == (1, 1)} & {
        "output_blocks.0.0.skip_connection"
    }
    as_saved = dict(state)
    for key in (key for key in state if key.startswith(f"{tcd.lora.kohya_name(point)}.")):
        state[key] = state[key].flatten(1)
    for key in (key for key in state if "to_q" in key):
        state[key] = state[key][..., None, None]
    pictures = []
    for saved in (as_saved, state):
        save_file(saved, loras / "a.safetensors")
        patched, *_, report = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
        assert "do not fit" not in report
        pictures.append(drawn(patched, cond))
    assert torch.equal(*pictures)


KINDS_OF_COMFYUI = {
    "dora": {"lora_down.weight": (2, 128), "lora_up.weight": (128, 2), "dora_scale": (128, 1)},
    "glora": {"a1.weight": (2, 128), "a2.weight": (128, 2), "b1.weight": (2, 128), "b2.weight": (128, 2)},
    "diff": {"diff": (128, 128), "diff_b": (128,)},
    "oft": {"oft_blocks": (4, 32, 32), "alpha": ()},
}


@pytest.mark.parametrize("kind", KINDS_OF_COMFYUI)
def test_kinds_that_only_comfyui_knows_are_left_to_it(model, cond, loras, kind):
    shapes, generator = KINDS_OF_COMFYUI[kind], torch.Generator().manual_seed(4)
    parts = {part: 0.1 * torch.randn(shape, generator=generator) for part, shape in shapes.items()}
    save_file({f"lora_unet_middle_block_1_proj_in.{part}": t for part, t in parts.items()}, loras / "a.safetensors")
    ours, *_, report = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
    (stock,) = run("LoraLoaderModelOnly", model=model, lora_name="a.safetensors", strength_model=1.0)
    assert report.startswith("a.safetensors: 1 of 1 modules matched")
    assert torch.equal(drawn(ours, cond), drawn(stock, cond))
    assert not torch.equal(drawn(ours, cond), drawn(model, cond))


def small_flux():
    """A Flux of one block of each kind."""
    pack()
    import comfy.model_base
    import comfy.supported_models
    from comfy.ldm.flux.model import FluxParams

    newer = {"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__dataclass_fields__ else {}
    config = comfy.supported_models.Flux(
        newer
        | {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "vec_in_dim": 8,
            "context_in_dim": 16,
            "hidden_size": 64,
            "mlp_ratio": 4.0,
            "num_heads": 2,
            "depth": 1,
            "depth_single_blocks": 1,
            "axes_dim": [8, 12, 12],
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": True,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    return SimpleNamespace(model=comfy.model_base.Flux(config))


def test_slices_of_a_weight_are_looked_at_as_such(tmp_path):
    """Flux holds queries, keys and values in one weight; diffusers' files do not."""
    model, block = small_flux(), "transformer.single_transformer_blocks.0.attn"
    state = {f"{block}.to_{which}.lora_A.weight": torch.ones(2, 64) for which in "qkv"}
    state |= {f"{block}.to_{which}.lora_B.weight": torch.ones(64, 2) for which in "qk"}
    state |= {f"{block}.to_v.lora_B.weight": torch.ones(448, 2)}  # as tall as the whole weight
    found = module("lora_match").match(str(tmp_path / "a"), state, {}, model)
    key = "diffusion_model.single_blocks.0.linear1.weight"
    assert found.fitting == {f"{block}.to_q": (key, (0, 0, 64)), f"{block}.to_k": (key, (0, 64, 64))}
    assert found.patches.keys() == set(found.fitting.values())
    reason = "lora_up.weight has shape (448, 2), this layer wants (64, 2); the weight has shape (64, 64)"
    assert found.misfits == {f"{block}.to_v": reason}


def test_a_name_that_comfyui_knows_for_no_weight_does_not_fit(tmp_path):
    state = {
        f"transformer.controlnet_x_embedder.{part}": torch.ones(2, 2) for part in ("lora_A.weight", "lora_B.weight")
    }
    found = module("lora_match").match(str(tmp_path / "a"), state, {}, small_flux())
    assert found.misfits == {"transformer.controlnet_x_embedder": "is not in this model"}


# --- what does not fit ------------------------------------------------------------------------------------------------

STRANGER = {"lora_unet_elsewhere.lora_down.weight": torch.ones(2, 4), "lora_unet_elsewhere.alpha": torch.tensor(2.0)}


def check_refused(model, loras, state, message) -> None:
    save_file(state, loras / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
    assert model.patches == {}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (STRANGER, r"none of its 1 modules fits this model; for example 'lora_unet_elsewhere': is not in this model"),
        ({}, r"none of its 0 modules fits this model; it is empty"),
        ({"model.weight": torch.ones(2)}, r"none of its 1 modules .*'model\.weight': is no key of a LoRA"),
        (
            {"lora_te_x.lora_down.weight": torch.ones(2, 4)},
            r"none of its 1 modules fits this model; connect clip to load its text encoder",
        ),
    ],
    ids=["another model", "empty", "no LoRA", "text encoder alone"],
)
def test_a_file_of_which_nothing_fits_is_refused(model, loras, state, message):
    check_refused(model, loras, state, rf"^a\.safetensors: {message}")


def test_shapes_of_another_model_are_named(model, loras):
    name = "lora_unet_middle_block_1_proj_in"
    state = {f"{name}.{part}": tensor for part, tensor in parts_of("lora", torch.Size([640, 640])).items()}
    reason = r"lora_down\.weight has shape \(2, 640\), this layer wants \(2, 128\); the weight has shape \(128, 128\)"
    check_refused(
        model, loras, STRANGER | state, rf"none of its 2 modules fits this model; for example '{name}': {reason}"
    )


PROJ = "lora_unet_middle_block_1_proj_in"
ODD = {
    "stranger": (
        {"lora_unet_elsewhere.lora_down.weight": torch.ones(2, 4)},
        "lora_unet_elsewhere: is not in this model",
    ),
    "shape": ({f"{PROJ}.lora_up.weight": torch.ones(64, 2)}, f"{PROJ}: lora_up.weight has shape (64, 2)"),
    "half": ({f"{PROJ}.lora_up.weight": None}, f"{PROJ}: has ['lora_down.weight'], which make no whole layer"),
    "half of a DoRA": (
        {f"{PROJ}.lora_down.weight": None, f"{PROJ}.dora_scale": torch.ones(128, 1)},
        f"{PROJ}: {PROJ}.lora_down.weight is missing",
    ),
    "unknown part": (
        {f"{PROJ}.lora_magnitude_vector.weight": torch.ones(128)},
        f"{PROJ}: {PROJ}.lora_magnitude_vector.weight: ComfyUI cannot use it",
    ),
    "no key": ({"bundle_emb.cat": torch.ones(4)}, "bundle_emb.cat: is no key of a LoRA"),
    "integers": (
        {f"{PROJ}.lora_up.weight": torch.ones(128, 2, dtype=torch.int8)},
        f"{PROJ}: lora_up.weight has torch.int8",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_lora_that_fits_in_part_says_so(model, cond, loras, caplog, kind):
    state, (more, reason) = written(model, "kohya"), ODD[kind]
    total = len(state) // 2 + (not any(key.startswith(PROJ) for key in more))
    save_file({k: t for k, t in (state | more).items() if t is not None}, loras / "partly.safetensors")
    patched, *_, report = run("TCD_LoraLoader", model=model, lora="partly.safetensors", strength=1.0)
    assert report.startswith(f"partly.safetensors: {total - 1} of {total} modules matched")
    assert f"do not fit: 1: {reason}" in report
    (warning,) = caplog.messages
    assert warning.startswith(f"partly.safetensors: 1 of {total} modules do not fit: {reason}")
    with caplog.at_level(logging.ERROR):
        drawn(patched, cond)
    assert len(caplog.messages) == 1  # ComfyUI has nothing to complain about while sampling


def test_three_misfits_are_named(model, loras, caplog):
    strangers = {f"lora_unet_stranger{i}.lora_down.weight": torch.ones(2, 4) for i in range(5)}
    save_file(written(model, "kohya") | strangers, loras / "a.safetensors")
    *_, report = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
    for text in (report, caplog.text):
        assert [f"stranger{i}" in text for i in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_named(model, loras, value):
    state = written(model, "kohya")
    state[f"{PROJ}.lora_up.weight"][3, 1] = value
    check_refused(model, loras, state, rf"a\.safetensors: {PROJ}\.lora_up\.weight holds values that are not finite")


def test_a_layer_in_two_spellings_is_refused(model, loras):
    kohya, twice = written(model, "kohya"), "diffusion_model.middle_block.1.proj_in"
    more = {f"{twice}.lora_A.weight": torch.ones(2, 128), f"{twice}.lora_B.weight": torch.ones(128, 2)}
    check_refused(model, loras, kohya | more, rf"{twice} and {PROJ} are both for the weight {twice}\.weight")
    more = {f"{PROJ}.lora_A.weight": torch.ones(2, 128)}
    check_refused(model, loras, kohya | more, rf"{PROJ}\.\S+ is there twice, once with another spelling")


# --- text encoders ----------------------------------------------------------------------------------------------------


def text_encoder(clip, before: str, words: tuple[str, str], dots: bool) -> dict[str, torch.Tensor]:
    """A LoRA for every layer of the tiny model's text encoder, which is CLIP's, only smaller."""
    state, start = {}, "clip_l.transformer."
    weights = {key: w for key, w in clip.cond_stage_model.state_dict().items() if ".layers." in key and w.ndim == 2}
    for seed, (key, weight) in enumerate(weights.items()):
        name = key.removeprefix(start).removesuffix(".weight")
        parts = parts_of("lora", weight.shape, seed=seed)
        for part, word in zip(("lora_down.weight", "lora_up.weight"), words, strict=True):
            state[f"{before}{name if dots else name.replace('.', '_')}.{word}"] = parts[part]
    return state


CLIPS = {
    "kohya": ("lora_te_", KOHYA, False),
    "sdxl": ("lora_te1_", KOHYA, False),
    "diffusers": ("text_encoder.", PEFT, True),
    "diffusers-old": ("text_encoder.", ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), True),
    "peft-named": ("base_model.model.text_encoder.", NAMED, True),
}


def encoded(clip) -> torch.Tensor:
    return run("CLIPTextEncode", clip=clip, text="red heart")[0][0][0]


@pytest.mark.parametrize("naming", CLIPS)
def test_a_text_encoder_is_patched_as_the_stock_loader_does(tiny, loras, naming):
    model, clip, _ = tiny
    before, unet = encoded(clip), written(model, "kohya")
    text = text_encoder(clip, *CLIPS[naming])
    save_file(unet | text, loras / "a.safetensors")
    _, ours, _, _, report = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=0.5, clip=clip)
    save_file(text_encoder(clip, *CLIPS["kohya"]), loras / "b.safetensors")
    _, stock = run(
        "LoraLoader", model=model, clip=clip, lora_name="b.safetensors", strength_model=0.5, strength_clip=0.5
    )
    assert report.startswith(f"a.safetensors: {len(unet | text) // 2} of {len(unet | text) // 2} modules matched")
    assert torch.equal(encoded(ours), encoded(stock))
    assert far(encoded(ours), before) > 0.01
    assert torch.equal(encoded(clip), before)
    assert clip.patcher.patches == {}


def test_without_clip_a_text_encoder_is_left_out_and_said(tiny, loras, caplog):
    unet, text = written(tiny[0], "kohya"), text_encoder(tiny[1], *CLIPS["kohya"])
    save_file(unet | text, loras / "a.safetensors")
    _, clip, _, _, report = run("TCD_LoraLoader", model=tiny[0], lora="a.safetensors", strength=1.0)
    assert clip is None
    assert report.startswith(f"a.safetensors: {len(unet) // 2} of {(len(unet) + len(text)) // 2} modules matched")
    assert f"left out: {len(text) // 2} of a text encoder; connect clip to load them" in report
    assert caplog.messages == []


def test_a_text_encoder_of_another_model_does_not_fit(tiny, loras, caplog):
    other = {"lora_te2_text_model_encoder_layers_9_mlp_fc1.lora_down.weight": torch.ones(2, 4)}
    save_file(written(tiny[0], "kohya") | other, loras / "a.safetensors")
    *_, report = run("TCD_LoraLoader", model=tiny[0], lora="a.safetensors", strength=1.0, clip=tiny[1])
    assert "do not fit: 1: lora_te2_text_model_encoder_layers_9_mlp_fc1: is not in this model" in report
    assert len(caplog.messages) == 1


def test_a_text_encoder_alone_is_loaded_with_clip(tiny, loras):
    save_file(text_encoder(tiny[1], *CLIPS["kohya"]), loras / "a.safetensors")
    model, clip, *_ = run("TCD_LoraLoader", model=tiny[0], lora="a.safetensors", strength=1.0, clip=tiny[1])
    assert model.patches == {}
    assert far(encoded(clip), encoded(tiny[1])) > 0.01


def test_peft_s_text_encoder_has_an_alpha_of_its_own(tiny, loras):
    state = written(tiny[0], "diffusers") | text_encoder(tiny[1], *CLIPS["diffusers"])
    packed = {"unet.lora_alpha": 1, "unet.r": 2, "text_encoder.lora_alpha": 6, "text_encoder.r": 2}
    save_file(state, loras / "a.safetensors", {"lora_adapter_metadata": json.dumps(packed)})
    save_file(state, loras / "b.safetensors")
    _, clip, *_ = run("TCD_LoraLoader", model=tiny[0], lora="a.safetensors", strength=1.0, clip=tiny[1])
    _, thrice, *_ = run("TCD_LoraLoader", model=tiny[0], lora="b.safetensors", strength=3.0, clip=tiny[1])
    assert far(encoded(clip), encoded(thrice)) < 1e-4


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_report_is_in_the_node_too(model):
    found = pack()["TCD_LoraLoader"].PREPARE_CLASS_CLONE({}).execute(model=model, lora=LORA, strength=1.0)
    assert "\n".join(found.ui["tcd_report"]) == found.result[-1]
    assert found.ui["tcd_report"][1:] == ["recommended: gamma 0.3, 4 steps, cfg 1"]
    assert found.ui["tcd_report"][0].endswith("modules matched; base TinyConfig, rank 6, method tcd, order 1")


def test_settings_and_cfg_are_the_file_s(model, loras):
    for name, gamma, steps, cfg in (
        ("pcm_sd15_normalcfg_8step_converted", 0, 8, 4.5),
        ("Hyper-SD15-1step-lora", 0.5, 4, 1),
    ):
        save_file(written(model, "kohya"), loras / f"{name}.safetensors")
        _, _, settings, guidance, report = run("TCD_LoraLoader", model=model, lora=f"{name}.safetensors", strength=1.0)
        assert (settings.gamma, settings.steps, settings.cfg, guidance) == (gamma, steps, cfg, cfg)
        assert f"recommended: gamma {gamma:g}, {steps} steps, cfg {cfg:g}" in report
        assert "guess" not in report


def test_an_unknown_lora_gets_a_guess_that_says_so(model, loras):
    state = written(model, "kohya")
    state[f"{PROJ}.lora_down.weight"] = torch.ones(7, 128)
    state[f"{PROJ}.lora_up.weight"] = torch.ones(128, 7)
    save_file(state, loras / "a.safetensors", {"modelspec.architecture": "stable-diffusion-v1/lora"})
    _, _, settings, _, report = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
    assert settings.method == "unknown"
    assert "base stable-diffusion-v1/lora, rank 2-7, method unknown, order 1" in report
    assert "recommended: gamma 0.3, 4 steps, cfg 1 (a guess: " in report


# --- TCF(S+) ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def s_plus(model, loras):
    """A LoRA of TCF(S+) whose embedding of s does something."""
    torch.manual_seed(5)
    made = tcd.TargetTime(out=256, width=64)
    torch.nn.init.normal_(made.out.weight, std=0.3)
    state = written(model, "kohya") | embed.to_tensors(made)
    save_file(state, loras / "s.safetensors", {"tcd.method": "tcd", "tcd.tcf": "s+"})
    return "s.safetensors"


def test_a_file_of_order_s_plus_embeds_s(model, cond, s_plus):
    before = drawn(model, cond)
    patched, _, settings, _, report = run("TCD_LoraLoader", model=model, lora=s_plus, strength=1.0)
    assert settings.order == "s+"
    assert "method tcd, order s+" in report
    assert "do not fit" not in report
    told = sample(patched, cond, tcd_sampler(gamma=0.0, order="s+"), sigmas(model))
    assert far(told, drawn(patched, cond)) > 0.01
    assert torch.equal(drawn(model, cond), before)
    assert model.model_options["transformer_options"] == {}
    with pytest.raises(ValueError, match="load a TCF"):
        sample(model, cond, tcd_sampler(gamma=0.0, order="s+"), sigmas(model))


def test_unloaded_the_model_is_bit_for_bit_what_it_was(model, cond, s_plus):
    import comfy.model_management

    before, weights = drawn(model, cond), {key: w.clone() for key, w in model.model.state_dict().items()}
    patched, *_ = run("TCD_LoraLoader", model=model, lora=s_plus, strength=1.0)
    sample(patched, cond, tcd_sampler(gamma=0.0, order="s+"), sigmas(model))
    comfy.model_management.unload_all_models()
    assert all(torch.equal(weights[key], w) for key, w in model.model.state_dict().items())
    assert torch.equal(drawn(model, cond), before)


def test_of_strength_0_it_is_the_teacher(model, cond, s_plus):
    patched, *_ = run("TCD_LoraLoader", model=model, lora=s_plus, strength=0.0)
    told = sample(patched, cond, tcd_sampler(gamma=0.0, order="s+"), sigmas(model))
    assert torch.equal(told, drawn(model, cond))


def test_an_embedding_of_s_alone_belongs_to_a_checkpoint_of_its_own(model, loras):
    torch.manual_seed(0)
    made = tcd.TargetTime(out=256)
    torch.nn.init.normal_(made.out.weight)
    save_file(embed.to_tensors(made), loras / "a.safetensors", {"tcd.method": "tcd", "tcd.tcf": "s+"})
    patched, _, settings, _, report = run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)
    assert settings.order == "s+"
    assert report.startswith("a.safetensors: 0 of 0 modules matched; method tcd, order s+")
    assert module("target_time").is_installed(patched.model_options)


def test_a_file_that_only_says_s_plus_is_refused(model, loras):
    save_file(written(model, "kohya"), loras / "a.safetensors", {"tcd.method": "tcd", "tcd.tcf": "s+"})
    with pytest.raises(ValueError, match=r"a\.safetensors: it is of order s\+, but has no tcd_target_time\. tensors"):
        run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)


def test_an_embedding_of_another_width_is_refused(model, loras):
    save_file(written(model, "kohya") | embed.to_tensors(tcd.TargetTime(out=1280)), loras / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors: the embedding of s is 1280 wide, this model's .* 256"):
        run("TCD_LoraLoader", model=model, lora="a.safetensors", strength=1.0)


# --- files that are no LoRA -------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=rf"lora '{name}': only \.safetensors files are read"):
        run("TCD_LoraLoader", model=model, lora=name, strength=1.0)


def test_a_missing_file_is_named(model, loras):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        run("TCD_LoraLoader", model=model, lora="gone.safetensors", strength=1.0)
