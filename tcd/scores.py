"""Scores by published networks: FID, FD-DINO, CLIP score, PickScore, ImageReward, IC9600. Weights are local files only.

Nothing here downloads: every score takes `weights`, a file or folder that is already there, and says what is missing.
The libraries (`pip install trajectory-consistency[scores]`) are imported by the score that needs them.

Images are [B, H, W, 3] in [0, 1], in one tensor or, where that is too large, in several one after another; networks
see them as a picture file would hold them, in 8 bits. Distances are numbers; other scores are [B], float32, on the CPU.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .metrics import frechet_distance, to_bytes

Images = Tensor | Iterable[Tensor]
Weights = str | os.PathLike
Device = str | torch.device

BATCH = 16  # pictures that a network sees at a time
IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # mean and standard deviation of the channels


@torch.no_grad()
def fid(images: Images, reference: Images, weights: Weights, device: Device = "cpu") -> float:
    """Frechet distance in Inception's 2048 features, as the first implementation has it (torch-fidelity's network).

    weights is the file weights-inception-2015-12-05-6726825d.pth that torch-fidelity publishes. Biased upwards for few
    pictures: compare only numbers of as many, and take more than 2048.
    """
    library = need("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity")
    path = only_data(local(weights))
    network = library.FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=str(path)).to(device)
    return distance(lambda batch: network(batch.movedim(-1, 1).to(device))[0], images, reference)


@torch.no_grad()
def fd_dino(images: Images, reference: Images, weights: Weights, device: Device = "cpu") -> float:
    """Frechet distance in DINOv2's class token, of the whole picture at 224 x 224 (Stein et al., arXiv 2306.04675).

    weights is a folder as `save_pretrained` writes it; published numbers are those of facebook/dinov2-large.
    """
    transformers = need("transformers", "transformers")
    network = pretrained(transformers.Dinov2Model, local(weights, "config.json"), device)

    def features(batch: Tensor) -> Tensor:
        return network(pixel_values=whole(batch, 224, "bicubic").to(device)).pooler_output

    return distance(features, images, reference)


def clip_score(images: Images, captions: Sequence[str], weights: Weights, device: Device = "cpu") -> Tensor:
    """Cosine of an image's and its caption's CLIP embeddings, [B]: as in the second paper, neither times 100 nor 2.5.

    weights is a folder as `save_pretrained` writes it, with its tokenizer; the paper's is CLIP ViT-L/14.
    """
    return clip_cosines(images, captions, weights, device)[0]


def pick_score(images: Images, captions: Sequence[str], weights: Weights, device: Device = "cpu") -> Tensor:
    """PickScore (arXiv 2305.01569), [B]: the cosine times the network's own scale, about 100.

    weights is a folder that holds yuvalkirstain/PickScore_v1 and the tokenizer and preprocessor of the CLIP that it was
    tuned from, laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
    """
    cosines, scale = clip_cosines(images, captions, weights, device)
    return cosines * scale


@torch.no_grad()
def image_reward(images: Images, captions: Sequence[str], weights: Weights, device: Device = "cpu") -> Tensor:
    """ImageReward (arXiv 2304.05977), [B]: about standard normal over its authors' pictures; papers print it times 100.

    weights is a folder that holds ImageReward.pt, med_config.json and, for the tokenizer, vocab.txt of
    bert-base-uncased. The package is of 2023 and needs the libraries of its time: give it an environment of its own.
    """
    package = need("ImageReward", "image-reward")
    folder = local(weights, "ImageReward.pt", "med_config.json", "vocab.txt")
    checkpoint, config = only_data(folder / "ImageReward.pt"), folder / "med_config.json"
    from PIL import Image
    from transformers import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    # The package asks for its tokenizer by name, which would be a download; and it prints.
    with patch.object(BertTokenizer, "from_pretrained", lambda _: tokenizer), redirect_stdout(sys.stderr):
        model = package.load(str(checkpoint), device=device, med_config=str(config))
    rewards = []
    for batch, texts in paired(images, captions):
        pictures = map(Image.fromarray, batch.numpy())
        rewards += [model.score(text, picture) for text, picture in zip(texts, pictures, strict=True)]
    return torch.tensor(rewards)


@torch.no_grad()
def ic9600(images: Images, weights: Weights | Callable[[Tensor], Any], device: Device = "cpu") -> Tensor:
    """Image complexity in [0, 1] by IC9600's ICNet (Feng et al., 2022), [B]: of the whole picture at 512 x 512.

    No maintained package has the network, so `weights` is the network: the authors' ICNet with their ck.pth loaded, in
    eval mode and on `device`, or a file that `torch.export.save` made of it from one picture [1, 3, 512, 512]. It is
    called with one such picture, normalised as ImageNet's, and returns the score, or first the score and then its map.
    """
    network = weights if callable(weights) else torch.export.load(local(weights)).module()
    if isinstance(weights, nn.Module) and weights.training:
        raise ValueError(f"{type(weights).__name__} is in training mode: call its eval() first")

    def score(picture: Tensor) -> float:
        output = network(whole(picture, 512, "bilinear").to(device))
        return (output[0] if isinstance(output, tuple | list) else output).item()

    return torch.tensor([score(picture) for batch in batches(images) for picture in batch.split(1)])


SCORES: dict[str, Callable[..., Any]] = {
    "fid": fid,
    "fd_dino": fd_dino,
    "clip_score": clip_score,
    "pick_score": pick_score,
    "image_reward": image_reward,
    "ic9600": ic9600,
}


def need(module: str, package: str) -> Any:
    """The module, or an ImportError that says which package to install, and why Python could not import it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this score needs {package}: pip install {package} ({error})") from error


def local(weights: Weights, *names: str) -> Path:
    """The path of a file, or of a folder that holds files of these names; an OSError that names what is not there."""
    path = Path(weights)
    for file in [path / name for name in names] or [path]:
        if not file.is_file():
            raise FileNotFoundError(f"scores download no weights, and there is no such file: {file}")
        if not os.access(file, os.R_OK):
            raise PermissionError(f"the weights may not be read: {file}")
    return path


def only_data(path: Path) -> Path:
    """The path of a torch file, or a ValueError where it holds anything but data: libraries would run it."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} holds no plain tensors: {error}") from error
    return path


def pretrained(kind: Any, path: Path, device: Device) -> Any:
    """A transformers model from its folder. ValueError where weights are missing: it would fill them with noise."""
    model, found = kind.from_pretrained(path, local_files_only=True, output_loading_info=True)
    lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if lacking:
        raise ValueError(f"{path} is no {kind.__name__}: it lacks {lacking[0]} and {len(lacking) - 1} more")
    return model.float().to(device).eval()


def batches(images: Images) -> Iterator[Tensor]:
    """8-bit pictures [b, H, W, 3] on the CPU, a few at a time, of one tensor or of several one after another."""
    part = None
    for part in [images] if isinstance(images, Tensor) else images:
        for batch in part.split(BATCH):
            yield to_bytes(batch).cpu()
    if part is None:  # such as a generator that somebody has already read to its end
        raise ValueError("there are no images")


def paired(images: Images, captions: Sequence[str]) -> Iterator[tuple[Tensor, list[str]]]:
    """`batches`, each with its captions. Raises ValueError unless there is one caption for each image."""
    texts = [] if isinstance(captions, str) else list(captions)
    seen = 0
    for batch in batches(images):
        seen += len(batch)
        if seen <= len(texts):
            yield batch, texts[seen - len(batch) : seen]
    if seen != len(texts):
        raise ValueError(f"captions must be a list, one text for each of {seen} images, got {captions!r:.80}")


def whole(pictures: Tensor, side: int, mode: str) -> Tensor:
    """8-bit pictures [b, H, W, 3], squeezed to side x side and normalised as ImageNet's, [b, 3, side, side]."""
    x = F.interpolate(pictures.movedim(-1, 1).float(), (side, side), mode=mode, antialias=True)
    x = x.round().clamp(0, 255) / 255  # as Pillow would have it, with which the networks were trained
    mean, std = IMAGENET[:, None, :, None, None]
    return (x - mean) / std


def distance(features: Callable[[Tensor], Tensor], images: Images, reference: Images) -> float:
    """Frechet distance in the features [b, d] of 8-bit pictures [b, H, W, 3]."""
    of_images, of_reference = (torch.cat([features(batch).cpu() for batch in batches(i)]) for i in (images, reference))
    return frechet_distance(of_images, of_reference)


@torch.no_grad()
def clip_cosines(images: Images, captions: Sequence[str], weights: Weights, device: Device) -> tuple[Tensor, float]:
    """(cosines of the embeddings of images and captions [B], the network's own scale); long captions are cut."""
    transformers = need("transformers", "transformers")
    path = local(weights, "config.json", "preprocessor_config.json")
    model = pretrained(transformers.CLIPModel, path, device)
    processor = transformers.CLIPProcessor.from_pretrained(path, local_files_only=True)
    longest = model.config.text_config.max_position_embeddings
    cosines = []
    for batch, texts in paired(images, captions):
        pixels = processor.image_processor(list(batch.numpy()), return_tensors="pt", input_data_format="channels_last")
        tokens = processor.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        output = model(**tokens.to(device), **pixels.to(device))
        cosines.append(F.cosine_similarity(output.image_embeds, output.text_embeds).cpu())
    return torch.cat(cosines), model.logit_scale.exp().item()
