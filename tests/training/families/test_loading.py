"""Checkpoints through ComfyUI's own loader: a small true one, what a file may lack, and what is refused by name."""

from pathlib import Path

import host_process
import pytest
import small_models
import torch
from host_process import ROOT
from safetensors.torch import load_file, save_file

from training import host, options

pytestmark = [pytest.mark.host, pytest.mark.slow]


def taesd(channels: int = 16) -> torch.nn.Module:
    """A VAE that is small, and one of those that ComfyUI knows."""
    from comfy.taesd.taesd import TAESD

    vae = TAESD(latent_channels=channels)
    small_models.randomize(vae)
    return vae


@pytest.fixture(scope="module")
def sd3_file(tmp_path_factory):
    """A small SD3 in one file, as its makers distribute it; of the text encoder, only what tells which it is."""
    host_process.pack()
    net, vae = small_models.load("sd3")[0].model.diffusion_model, taesd()
    tensors = {f"model.diffusion_model.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in vae.state_dict().items()}
    tensors["text_encoders.clip_l.transformer.text_model.final_layer_norm.weight"] = torch.ones(768)
    path = tmp_path_factory.mktemp("checkpoint") / "sd3.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def part_of(path, folder, *prefixes: str):
    """A file of those tensors alone."""
    save_file({key: value for key, value in load_file(path).items() if key.startswith(prefixes)}, folder / path.name)
    return folder / path.name


def test_comfyuis_own_loader_gives_the_same_network(sd3_file):
    loaded = host.load_teacher(options.Options(pretrained_model_name_or_path=str(sd3_file)))
    small = small_models.load("sd3")[0].model.diffusion_model.state_dict()
    state = loaded.unet.state_dict()
    assert state.keys() == small.keys()
    assert all(torch.equal(state[name], value) for name, value in small.items())
    assert (loaded.kind, loaded.architecture) == ("flow", "SD3")
    assert not any(parameter.requires_grad for parameter in loaded.unet.parameters())
    pixels = torch.rand(1, 16, 24, 3)
    latents = host.encode_pictures(loaded, pixels)
    assert latents.shape == (1, 16, 2, 3)
    assert host.decode_latents(loaded, latents).shape == pixels.shape
    assert host.downscale(loaded) == 8


@pytest.mark.parametrize("precision", list(host.DTYPES))
def test_the_network_is_in_the_wanted_precision_and_the_vae_in_float32(sd3_file, precision):
    loaded = host.load_teacher(options.Options(pretrained_model_name_or_path=str(sd3_file), mixed_precision=precision))
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {host.DTYPES[precision]}
    assert loaded.vae.vae_dtype == torch.float32
    assert {parameter.dtype for parameter in loaded.vae.first_stage_model.parameters()} == {torch.float32}
    weight = "first_stage_model.taesd_encoder.0.weight"  # which was not rounded on the way
    assert torch.equal(loaded.vae.first_stage_model.taesd_encoder[0].weight, load_file(sd3_file)[weight])


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        (("model.", "text_encoders."), "no VAE:"),
        (("model.", "first_stage_model."), "no text encoder:"),
        (("model.",), "no text encoder and no VAE:"),
    ],
)
def test_a_part_that_the_file_lacks_is_named(sd3_file, tmp_path, kept, missing):
    path = part_of(sd3_file, tmp_path, *kept)
    with pytest.raises(
        ValueError, match=rf"sd3\.safetensors has {missing} name files of their own by text_encoders and vae"
    ):
        host.load(path)


def test_text_encoders_and_vae_may_be_files_of_their_own(sd3_file, tmp_path, monkeypatch):
    import comfy.sd

    asked = []
    monkeypatch.setattr(comfy.sd, "load_clip", lambda paths, clip_type: asked.append((paths, clip_type)) or "clip")
    state = load_file(sd3_file)
    prefix, of_vae = "model.diffusion_model.", "first_stage_model."
    save_file(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, tmp_path / "net.safetensors"
    )
    save_file(
        {k.removeprefix(of_vae): v for k, v in state.items() if k.startswith(of_vae)}, tmp_path / "vae.safetensors"
    )
    for name in ("l", "g"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    files = tuple(str(tmp_path / f"{name}.safetensors") for name in ("l", "g"))
    named = {"vae": str(tmp_path / "vae.safetensors"), "text_encoders": files}
    loaded = host.load_teacher(
        options.Options(pretrained_model_name_or_path=str(tmp_path / "net.safetensors"), **named)
    )
    assert asked == [(list(files), comfy.sd.CLIPType.SD3)]
    assert loaded.clip == "clip"
    whole = host.load_teacher(options.Options(pretrained_model_name_or_path=str(sd3_file))).unet.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in loaded.unet.state_dict().items())


def test_text_encoders_that_comfyui_does_not_know_are_named(sd3_file, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no text encoder")
    with pytest.raises(ValueError, match=r"text_encoders .*x\.safetensors cannot be loaded for SD3: "):
        host.load(sd3_file, text_encoders=[str(tmp_path / "x.safetensors")])


def test_a_file_of_a_diffusion_model_alone_is_told_what_it_lacks(sd3_file, tmp_path):
    state = {key.removeprefix("model.diffusion_model."): value for key, value in load_file(sd3_file).items()}
    save_file(
        {key: state[key] for key in small_models.load("sd3")[0].model.diffusion_model.state_dict()},
        tmp_path / "x.safetensors",
    )
    with pytest.raises(ValueError, match=r"x\.safetensors has no text encoder and no VAE"):
        host.load(tmp_path / "x.safetensors")


def test_a_vae_of_its_own_stands_in_for_the_missing_one(sd3_file, tmp_path):
    own = taesd().state_dict()
    save_file(own, tmp_path / "vae.safetensors")
    path = part_of(sd3_file, tmp_path, "model.", "text_encoders.")
    loaded = host.load_teacher(
        options.Options(pretrained_model_name_or_path=str(path), vae=str(tmp_path / "vae.safetensors"))
    )
    state = loaded.vae.first_stage_model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.items())


def test_a_vae_of_another_latent_space_is_refused(sd3_file, tmp_path):
    save_file(taesd(4).state_dict(), tmp_path / "vae.safetensors")
    with pytest.raises(ValueError, match=r"vae .*vae\.safetensors has 4 channels, the model's latents have 16"):
        host.load(sd3_file, vae=str(tmp_path / "vae.safetensors"))
    with pytest.raises(ValueError, match=r"vae .*tcd_tiny_lora\.safetensors is not a VAE"):
        host.load(sd3_file, vae=str(ROOT / "demo" / "loras" / "tcd_tiny_lora.safetensors"))


def small(loader: str) -> host.Models:
    """What a loader in small_models gives, which looks into no file."""
    return host.load(Path("small.safetensors"), f"small_models:{loader}")


@pytest.mark.parametrize("name", ["scaled_fp8", "layer_quant_config", "quant_config"])
def test_scaled_fp8_is_refused(monkeypatch, name):
    def loader(path, dtype):
        found = small_models.sd15()
        setattr(found[0].model.model_config, name, torch.float8_e4m3fn)
        return found

    monkeypatch.setattr(small_models, "fp8", loader, raising=False)
    with pytest.raises(ValueError, match=r"small\.safetensors is in scaled fp8.*use the bf16 or fp16 file"):
        small("fp8")


def test_models_for_inpainting_or_of_other_latents_are_refused(monkeypatch):
    def inpainting(path, dtype):
        found = small_models.sd15()
        found[0].model.set_inpaint()
        return found

    def video(path, dtype):
        found = small_models.sd15()
        found[0].model.latent_format.latent_dimensions = 3
        return found

    monkeypatch.setattr(small_models, "inpainting", inpainting, raising=False)
    monkeypatch.setattr(small_models, "video", video, raising=False)
    with pytest.raises(ValueError, match=r"small\.safetensors is for inpainting or editing"):
        small("inpainting")
    with pytest.raises(ValueError, match=r"small\.safetensors is a SD15, which has no latents of two dimensions"):
        small("video")
