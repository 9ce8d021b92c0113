"""TCD_TinyLoader: what it gives works with ComfyUI's own nodes, as a checkpoint's MODEL, CLIP and VAE would."""

import pytest
import torch
from host_process import ROOT, empty, run
from safetensors.torch import save_file

pytestmark = pytest.mark.host

CHECKPOINT = ROOT / "demo" / "tiny.safetensors"


def encode(clip, text):
    return run("CLIPTextEncode", clip=clip, text=text)[0][0][0]


def picture():
    """Smooth colours with a disc in the middle, [1, 128, 128, 3]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    disc = (x**2 + y**2 < 0.4)[..., None]
    return torch.where(disc, torch.tensor([0.9, 0.2, 0.2]), torch.ones(3))[None]


def test_all_weights_together_keep_to_their_limit():
    demo = CHECKPOINT.parent
    files = [*demo.glob("*.safetensors"), *demo.glob("loras/*.safetensors")]
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) <= 20 * 2**20


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_ksampler_samples_it(tiny, cfg):
    model, clip, vae = tiny
    positive, negative = (run("CLIPTextEncode", clip=clip, text=text)[0] for text in ("red heart", ""))
    (latent,) = run(
        "KSampler", model=model, seed=1, steps=3, cfg=cfg, sampler_name="dpmpp_2m", scheduler="normal",
        positive=positive, negative=negative, latent_image=empty(2), denoise=1.0,
    )  # fmt: skip
    (images,) = run("VAEDecode", vae=vae, samples=latent)
    assert images.shape == (2, 128, 128, 3)
    assert torch.isfinite(images).all()
    assert 0 <= images.min() < images.max() <= 1


def test_other_sizes_work(tiny):
    model, clip, vae = tiny
    cond = run("CLIPTextEncode", clip=clip, text="cat")[0]
    (latent,) = run("EmptyLatentImage", width=192, height=64, batch_size=1)
    (out,) = run(
        "KSampler", model=model, seed=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="simple",
        positive=cond, negative=cond, latent_image=latent, denoise=1.0,
    )  # fmt: skip
    assert run("VAEDecode", vae=vae, samples=out)[0].shape == (1, 64, 192, 3)


def test_the_vae_gives_back_what_it_encoded(tiny):
    vae, image = tiny[2], picture()
    (latent,) = run("VAEEncode", vae=vae, pixels=image)
    assert latent["samples"].shape == (1, 4, 16, 16)
    (back,) = run("VAEDecode", vae=vae, samples=latent)
    assert (back - image).abs().mean() < 0.05


def test_tiled_decoding_agrees(tiny):
    vae = tiny[2]
    (latent,) = run("VAEEncode", vae=vae, pixels=picture())
    (whole,) = run("VAEDecode", vae=vae, samples=latent)
    (tiled,) = run("VAEDecodeTiled", vae=vae, samples=latent, tile_size=64, overlap=32)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.05


def test_the_prompt_is_read_word_by_word(tiny):
    clip = tiny[1]
    plain = encode(clip, "red heart")
    assert plain.shape == (1, 16, 128)
    assert torch.equal(plain, encode(clip, "A RED heart!"))
    assert not torch.equal(plain, encode(clip, "heart red"))
    assert not torch.equal(plain, encode(clip, "blue heart"))


def test_weights_in_the_prompt_change_that_word(tiny):
    clip = tiny[1]
    plain, strong = encode(clip, "red heart"), encode(clip, "(red:1.3) heart")
    assert not torch.equal(plain[:, 1], strong[:, 1])
    assert torch.equal(plain[:, 2], strong[:, 2])
    assert torch.equal(plain, encode(clip, "(red:1.0) heart"))


def test_an_empty_prompt_is_encoded(tiny):
    empty_prompt = encode(tiny[1], "")
    assert torch.isfinite(empty_prompt).all()
    assert empty_prompt.shape == (1, 16, 128)


def test_an_unknown_word_is_named_and_read_as_unknown(tiny, caplog):
    clip = tiny[1]
    first = encode(clip, "red zorblax")
    assert "'zorblax'" in caplog.text
    assert torch.equal(first, encode(clip, "red qwfpgj"))
    assert not torch.equal(first, encode(clip, "red"))


def test_a_plural_is_read_as_its_singular():
    from demo import tiny as module

    tokenizer = module.WordTokenizer([*module.SPECIAL, "cat", "box", "glasses"])
    assert tokenizer("Cats, boxes; the glasses")["input_ids"] == [module.START, 3, 4, 5, module.END]


def test_a_prompt_longer_than_the_encoder_is_cut_into_parts(tiny):
    assert encode(tiny[1], " ".join(["red heart"] * 10)).shape == (1, 32, 128)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    from demo import tiny as module

    path = tmp_path / "other.safetensors"
    save_file({"model.diffusion_model.x": torch.ones(2)}, path, {"modelspec.architecture": "stable-diffusion-v1"})
    with pytest.raises(ValueError, match=r"other\.safetensors is not a tiny TCD model.*'stable-diffusion-v1'"):
        module.load(path)


def test_a_checkpoint_without_metadata_is_refused(tmp_path):
    from demo import tiny as module

    save_file({"x": torch.ones(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"bare\.safetensors is not a tiny TCD model.*'none'"):
        module.load(tmp_path / "bare.safetensors")


@pytest.mark.parametrize("size", [0, 7, 1_000_000])
def test_a_corrupt_checkpoint_is_named(tmp_path, size):
    from demo import tiny as module

    path = tmp_path / "broken.safetensors"
    path.write_bytes(CHECKPOINT.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"broken\.safetensors is not a readable safetensors file"):
        module.load(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    from demo import tiny as module

    with pytest.raises(FileNotFoundError, match=r"embedded model is missing: .*gone\.safetensors"):
        module.load(tmp_path / "gone.safetensors")
