"""Scores by published networks: what is missing is named, and tiny random networks of the real libraries are scored."""

import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tcd import scores
from tcd.metrics import frechet_from_statistics
from tcd.scores import SCORES, batches, distance, need, paired, whole

PACKAGES = {
    "fid": ("torch_fidelity", "torch-fidelity"),
    "fd_dino": ("transformers", "transformers"),
    "clip_score": ("transformers", "transformers"),
    "pick_score": ("transformers", "transformers"),
    "image_reward": ("ImageReward", "image-reward"),
}
SECOND = {"fid": "reference", "fd_dino": "reference", "ic9600": None}  # the others take captions
ALL = pytest.mark.parametrize("name", SCORES)


def pictures(n: int = 3, height: int = 40, width: int = 48, seed: int = 0) -> Tensor:
    """Smooth pictures [n, H, W, 3] in [0, 1] of 8 bits, so that no rounding is left to argue about."""
    coarse = torch.rand(n, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    fine = F.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)
    return (fine * 255).round() / 255


def score(name: str, images: Tensor | list, weights: object, captions: object = ("a", "b", "c")):
    second = {"reference": [images], None: []}.get(SECOND.get(name, "captions"), [captions])
    return SCORES[name](images, *second, weights=weights)


def library(name: str):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install trajectory-consistency[scores]")


# What is missing


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_library_is_named(monkeypatch, tmp_path, name):
    module, package = PACKAGES[name]
    for known in [known for known in sys.modules if known.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)  # so Python refuses to import it
    with pytest.raises(ImportError, match=rf"needs {package}: pip install {package} \(.*{module}"):
        score(name, pictures(), tmp_path)


def test_a_library_that_does_not_import_says_why(monkeypatch, tmp_path):
    (tmp_path / "ancient_library.py").write_text("from json import what_is_no_longer_there", encoding="ascii")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"pip install ancient \(.*what_is_no_longer_there"):
        need("ancient_library", "ancient")


@ALL
def test_missing_weights_are_named(monkeypatch, tmp_path, name):
    monkeypatch.setattr(scores, "need", lambda module, package: MagicMock())
    with pytest.raises(FileNotFoundError, match=r"download no weights, and there is no such file: .*gone"):
        score(name, pictures(), tmp_path / "gone")


@ALL
def test_a_name_on_a_hub_is_no_weights(monkeypatch, tmp_path, name):
    monkeypatch.setattr(scores, "need", lambda module, package: MagicMock())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="openai/clip-vit-large-patch14"):
        score(name, pictures(), "openai/clip-vit-large-patch14")


@ALL
def test_weights_that_may_not_be_read_are_named(monkeypatch, tmp_path, name):
    monkeypatch.setattr(scores, "need", lambda module, package: MagicMock())
    monkeypatch.setattr(scores.os, "access", lambda path, mode: False)
    files = ("config.json", "preprocessor_config.json", "ImageReward.pt", "med_config.json", "vocab.txt")
    for file in files:
        (tmp_path / file).touch()
    weights = tmp_path / "ImageReward.pt" if name in ("fid", "ic9600") else tmp_path
    with pytest.raises(PermissionError, match=r"may not be read: .*(ImageReward.pt|config.json)"):
        score(name, pictures(), weights)


@pytest.mark.parametrize("name", ["fid", "image_reward"])
def test_weights_that_would_run_as_code_are_refused(monkeypatch, tmp_path, name):
    """These libraries unpickle whatever they are given."""
    monkeypatch.setattr(scores, "need", lambda module, package: MagicMock())
    torch.save({"weight": SimpleNamespace(a=1)}, tmp_path / "ImageReward.pt")
    for file in ("med_config.json", "vocab.txt"):
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match=r"ImageReward.pt holds no plain tensors"):
        score(name, pictures(), tmp_path / "ImageReward.pt" if name == "fid" else tmp_path)


# Images and captions


def test_pictures_come_a_few_at_a_time_in_8_bits():
    images = pictures(scores.BATCH + 2)
    sizes = [len(batch) for batch in batches(images)]
    assert sizes == [scores.BATCH, 2]
    for parts in (images, [images[:1], images[1:]], iter(images.split(3))):
        seen = torch.cat(list(batches(parts)))
        assert seen.dtype == torch.uint8
        assert torch.equal(seen, (images * 255).to(torch.uint8))


def test_parts_may_differ_in_size():
    shapes = [tuple(batch.shape) for batch in batches([pictures(2, 8, 8), pictures(1, 9, 7)])]
    assert shapes == [(2, 8, 8, 3), (1, 9, 7, 3)]


def test_what_are_no_images_is_named():
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\], got -0.5"):
        list(batches([pictures(), pictures() * 0 - 0.5]))
    spent = iter(())
    with pytest.raises(ValueError, match="there are no images"):
        list(batches(spent))


def test_every_batch_has_its_captions():
    captions = [str(i) for i in range(scores.BATCH + 2)]
    pairs = list(paired(pictures(len(captions), 8, 8), captions))
    assert [texts for _, texts in pairs] == [captions[: scores.BATCH], captions[scores.BATCH :]]
    assert [len(batch) for batch, _ in pairs] == [scores.BATCH, 2]


@pytest.mark.parametrize("captions", [["a", "b"], ["a", "b", "c", "d"], "abc", []])
def test_captions_of_another_number_are_named(captions):
    with pytest.raises(ValueError, match=r"one text for each of 3 images, got ['\[]"):
        list(paired(pictures(), captions))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [20, 100])
def test_pictures_are_resized_as_pillow_does(mode, side):
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference, and is not installed")
    given = (pictures() * 255).to(torch.uint8)
    method = image.Resampling[mode.upper()]
    wanted = np.stack([image.fromarray(picture).resize((side, side), method) for picture in given.numpy()])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    levels = (whole(given, side, mode).movedim(1, -1) * std + mean) * 255
    assert (levels - torch.from_numpy(wanted)).abs().max() < 1.01  # Pillow rounds twice, after each direction


def test_a_distance_is_of_all_features():
    """Of the mean colours, by the statistics that numpy finds."""
    a, b = pictures(20), pictures(30, seed=1)
    colours = [x.mean((1, 2)).double().numpy() for x in (a, b)]
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), np.cov(x.T)) for x in colours)
    drawn = distance(lambda batch: batch.double().mean((1, 2)) / 255, a, b.split(7))
    assert drawn == pytest.approx(frechet_from_statistics(mean_a, cov_a, mean_b, cov_b), rel=1e-5)
    assert drawn > 0


# Real libraries, tiny networks


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of 8 features with a tokenizer of letters, as `save_pretrained` writes it."""
    transformers = library("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="ascii")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="ascii")
    transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**size, **ends, "vocab_size": len(words), "max_position_embeddings": 12}
    vision = {**size, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8, initializer_factor=20.0)
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**sides).save_pretrained(folder)
    return folder


def clip_embeddings(folder, images: Tensor, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """(images', texts' embeddings, the scale), by the two towers apart, one picture and text at a time, by Pillow."""
    transformers = library("transformers")
    image = pytest.importorskip("PIL.Image", reason="Pillow is what the preprocessor resizes with")
    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    with torch.no_grad():
        pixels = [processor(image.fromarray(x), return_tensors="pt") for x in (images * 255).byte().numpy()]
        tokens = [tokenizer(text, truncation=True, max_length=12, return_tensors="pt") for text in captions]
        seen = [model.visual_projection(model.vision_model(**x).pooler_output)[0] for x in pixels]
        read = [model.text_projection(model.text_model(**x).pooler_output)[0] for x in tokens]
    return torch.stack(seen), torch.stack(read), model.logit_scale.exp().detach()


CAPTIONS = ["a cat", "one very long caption that does not fit", "dog"]


def test_the_clip_score_is_the_cosine_of_the_two_towers(clip_folder):
    images = pictures()
    seen, read, _ = clip_embeddings(clip_folder, images, CAPTIONS)
    wanted = torch.cosine_similarity(seen, read)
    assert wanted.std() > 0.01  # three captions, three scores
    drawn = scores.clip_score(images, CAPTIONS, clip_folder)
    assert drawn.dtype == torch.float32
    assert not drawn.requires_grad
    assert torch.allclose(drawn, wanted, atol=1e-4)
    assert torch.allclose(scores.clip_score(images.split(2), CAPTIONS, str(clip_folder)), wanted, atol=1e-4)


def test_the_pick_score_is_scaled(clip_folder):
    seen, read, scale = clip_embeddings(clip_folder, pictures(), CAPTIONS)
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-3)  # an untrained CLIP's
    wanted = scale * torch.cosine_similarity(seen, read)
    assert torch.allclose(scores.pick_score(pictures(), CAPTIONS, clip_folder), wanted, atol=1e-3)


def test_pictures_as_high_as_they_have_channels_are_not_mistaken(clip_folder):
    images = pictures(1, 3, 40)
    assert scores.clip_score(images, ["cat"], clip_folder).shape == (1,)


def test_a_checkpoint_without_some_weights_is_refused(clip_folder, tmp_path):
    """The library would draw them at random, and say so only in its log."""
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"is no CLIPModel: it lacks visual_projection.weight and 0 more"):
        scores.clip_score(pictures(), CAPTIONS, tmp_path)


def test_a_folder_without_a_preprocessor_is_refused(clip_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((clip_folder / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no such file: .*preprocessor_config.json"):
        scores.clip_score(pictures(), CAPTIONS, tmp_path)


def test_fd_dino_is_of_the_class_token_of_the_whole_picture(tmp_path):
    """Against the library's own preprocessor, without its crop, and the covariances of what it makes of them."""
    transformers = library("transformers")
    image = pytest.importorskip("PIL.Image", reason="Pillow is what the preprocessor resizes with")
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**size)).eval()
    model.save_pretrained(tmp_path)
    sides = {"size": {"height": 224, "width": 224}, "resample": image.Resampling.BICUBIC}
    processor = transformers.BitImageProcessor(**sides, do_center_crop=False, image_mean=[0.485, 0.456, 0.406])
    processor.image_std = [0.229, 0.224, 0.225]

    def statistics(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        files = [image.fromarray(x) for x in (images * 255).byte().numpy()]
        with torch.no_grad():
            tokens = model(**processor(files, return_tensors="pt")).last_hidden_state[:, 0]
        return tokens.mean(0).numpy(), np.cov(tokens.double().numpy().T)

    a, b = pictures(6), pictures(7, 48, 40, seed=1)
    wanted = frechet_from_statistics(*statistics(a), *statistics(b))
    assert wanted > 1e-3
    assert scores.fd_dino(a, b, tmp_path) == pytest.approx(wanted, rel=0.01)  # resizing differs by one level of 255
    assert scores.fd_dino(a, a, tmp_path) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_fid_is_torch_fidelity_s_own(monkeypatch, tmp_path):
    """A network with random weights: the library's whole computation, and ours, from the same pictures."""
    fidelity = library("torch_fidelity")
    network = library("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(network, "load_state_dict_from_url", lambda *args, **kwargs: {})

    class Untrained(network.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            pass

    torch.manual_seed(0)
    torch.save(Untrained("untrained", ["2048"]).state_dict(), tmp_path / "inception.pth")
    a, b = pictures(6), pictures(5, seed=1)
    sets = [[(x * 255).byte().movedim(-1, 0) for x in images] for images in (a, b)]
    options = {"fid": True, "cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True}
    theirs = fidelity.calculate_metrics(
        input1=Listed(sets[0]),
        input2=Listed(sets[1]),
        feature_extractor_weights_path=tmp_path / "inception.pth",
        **options,
    )["frechet_inception_distance"]
    assert scores.fid(a, b, tmp_path / "inception.pth") == pytest.approx(theirs, rel=1e-3)
    assert theirs > 0


class Listed(torch.utils.data.Dataset):
    """uint8 pictures [3, H, W] as the data set that torch-fidelity asks for."""

    def __init__(self, items: list[Tensor]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Tensor:
        return self.items[i]


class MeanRed(nn.Module):
    """Says, as ICNet does, a score [1, 1] and its map: how red the picture is, in ImageNet's normalised units."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1].mean((2, 3)), x[:, :1]


@pytest.mark.parametrize("saved", [False, True], ids=["module", "file"])
def test_ic9600_scores_with_the_network_that_it_is_given(tmp_path, saved):
    red = torch.tensor([0.0, 0.2, 1.0])
    images = torch.zeros(3, 10, 20, 3)
    images[..., 0] = red[:, None, None]
    network = MeanRed().eval()
    if saved:
        program = torch.export.export(network, (torch.zeros(1, 3, 512, 512),))
        torch.export.save(program, tmp_path / "icnet.pt2")
    drawn = scores.ic9600(images, tmp_path / "icnet.pt2" if saved else network)
    assert drawn.tolist() == pytest.approx(((red - 0.485) / 0.229).tolist(), abs=1e-5)


def test_ic9600_takes_any_function_of_one_picture():
    shapes = []

    def network(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x.new_tensor(0.5)

    assert scores.ic9600(pictures(), network).tolist() == [0.5] * 3
    assert shapes == [(1, 3, 512, 512)] * 3


def test_ic9600_refuses_a_network_in_training():
    with pytest.raises(ValueError, match=r"MeanRed is in training mode: call its eval\(\)"):
        scores.ic9600(pictures(), MeanRed())


def test_image_reward_is_the_package_s_with_the_local_tokenizer(monkeypatch, tmp_path, capsys):
    """The package needs libraries of 2023, so a stand-in with its interface: it asks for its tokenizer by name."""
    transformers = library("transformers")
    pytest.importorskip("PIL.Image", reason="Pillow is what the package takes pictures of")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="ascii")
    (tmp_path / "med_config.json").write_text("{}", encoding="ascii")
    torch.save({"factor": torch.tensor(10.0)}, tmp_path / "ImageReward.pt")

    def load(name: str, device: object, med_config: str):
        print("load checkpoint from", name)  # noqa: T201
        assert med_config == str(tmp_path / "med_config.json")
        tokenizer = transformers.BertTokenizer.from_pretrained("bert-base-uncased")
        factor = torch.load(name, weights_only=True)["factor"].item()
        return SimpleNamespace(
            score=lambda text, image: factor * len(tokenizer.tokenize(text)) + image.getpixel((0, 0))[0]
        )

    monkeypatch.setitem(sys.modules, "ImageReward", SimpleNamespace(load=load))
    images = pictures()
    drawn = scores.image_reward(images, ["cat", "cat dog", "dog"], tmp_path)
    wanted = torch.tensor([10.0, 20.0, 10.0]) + images[:, 0, 0, 0] * 255
    assert torch.allclose(drawn, wanted)
    assert capsys.readouterr().out == ""
    assert "from_pretrained" not in vars(transformers.BertTokenizer)  # what was patched is as before


def test_every_score_is_in_the_table_under_its_own_name():
    assert {name: score.__name__ for name, score in SCORES.items()} == {name: name for name in SCORES}
    assert set(SCORES) == {*PACKAGES, "ic9600"}
