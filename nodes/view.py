"""A recorded trajectory as what the front end shows: pictures in files, numbers in JSON (web/js/trajectory.js)."""

import json
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
import torch
from PIL import Image
from torch import Tensor

from .. import tcd

ANOTHER_RUN = "The latent is not where this trajectory ended: shown is the last run of the recording model."
SHOWN = 512  # pixels: the longer side of a picture in the viewer
DECODED = 64  # states that the VAE decodes for one view; beyond, other pictures than the chosen one are previews
FRAME_MS = 600  # of the animation


def one_picture(x: Tensor) -> Tensor:
    """States [n, C, H, W] of states of any rank; of a video's, its first frame."""
    while x.ndim > 4:
        x = x[:, :, 0]
    return x


def preview_pixels(latent_format, x: Tensor) -> Tensor:
    """Fast RGB preview [n, H, W, 3] in [0, 1] of model-space states [n, C, H, W], by the format's linear colours."""
    factors = latent_format.latent_rgb_factors
    if factors is None:  # nothing is known of its channels
        rgb = x[:, :3].movedim(1, -1)
        return (rgb / (6 * rgb.std() + 1e-6) + 0.5).clamp(0, 1)
    bias = latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0]
    rgb = x.float().movedim(1, -1) @ torch.tensor(factors) + torch.tensor(bias)
    return (rgb / 2 + 0.5).clamp(0, 1)


def decoded(latent_format, vae, x: Tensor) -> Tensor:
    """Pictures [n, H, W, 3] in [0, 1] of model-space states [n, C, H, W], by the VAE; of a video's, which makes several
    of each, the first."""
    latent = latent_format.process_out(x)
    pictures = vae.decode(latent[:, :, None] if getattr(vae, "latent_dim", 2) == 3 else latent)
    return (pictures[:, 0] if pictures.ndim == 5 else pictures).cpu().float()


@dataclass(frozen=True, eq=False)
class Painter:
    """Makes pictures of a recorder's states: by the VAE, or previews without one that fits."""

    latent_format: Any
    vae: Any = None

    def missing(self, channels: int) -> str:
        """Why there are previews alone, in words; empty where the VAE fits."""
        if self.vae is None:
            return "No VAE is connected: the pictures are rough previews."
        theirs = getattr(self.vae, "latent_channels", channels)
        if theirs != channels:
            return f"The VAE is of another model ({theirs} channels, not {channels}): the pictures are rough previews."
        return ""

    def paint(self, x: Tensor, fast: bool = False) -> Tensor:
        x = one_picture(x)
        if fast or self.missing(x.shape[1]):
            return preview_pixels(self.latent_format, x)
        return decoded(self.latent_format, self.vae, x)


@dataclass(frozen=True)
class Folder:
    """Where a view's files go: ComfyUI's temporary folder, or its output folder for those that are to be kept."""

    path: Path
    stem: str
    subfolder: str
    type: str

    @classmethod
    def make(cls, keep: bool) -> "Folder":
        root = folder_paths.get_output_directory() if keep else folder_paths.get_temp_directory()
        # A name of its own each time: browsers keep pictures by their address.
        prefix = "trajectory/view" if keep else f"tcd_view_{uuid.uuid4().hex[:8]}"
        path, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root)
        return cls(Path(path), f"{stem}_{counter:05}", subfolder, "output" if keep else "temp")

    @contextmanager
    def whole(self) -> Iterator["Folder"]:
        """Within the `with` its files are written: all of them, or, where that raises OSError, none."""
        try:
            yield self
        except OSError as error:
            for path in self.path.glob(f"{self.stem}_*"):
                path.unlink()
            advice = "free some space there, or start ComfyUI with another folder for its files"
            raise OSError(f"the trajectory's files could not be written to {self.path}: {error}; {advice}") from error

    def file(self, name: str) -> Path:
        return self.path / f"{self.stem}_{name}"

    def reference(self, name: str) -> dict[str, str]:
        """How the front end asks for a file."""
        return {"filename": self.file(name).name, "subfolder": self.subfolder, "type": self.type}

    def picture(self, name: str, pixels: Tensor) -> dict[str, str]:
        """Save a picture [H, W, 3] as WebP, small enough for the viewer."""
        image = as_image(pixels)
        image.thumbnail((SHOWN, SHOWN))
        image.save(self.file(f"{name}.webp"), quality=90)
        return self.reference(f"{name}.webp")

    def animation(self, name: str, frames: Tensor) -> dict[str, str]:
        first, *others = map(as_image, frames)
        first.save(self.file(name), save_all=True, append_images=others, duration=FRAME_MS, loop=0, quality=90)
        return self.reference(name)


def as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().numpy())


def numbers(values: Tensor | None) -> list | None:
    """As lists, for JSON, which has no nan: it becomes null."""
    if values is None:
        return None
    if values.ndim > 1:
        return [numbers(row) for row in values]
    return [value if math.isfinite(value) else None for value in values.double().tolist()]


def measures(path: tcd.Trajectory, item: int) -> dict[str, list | None]:
    """Per step: change of the clean prediction, distance to the path without noise, detail."""
    distance = path.distance()
    return {
        "drift": [None, *(numbers(path.drift()[:, item]) or [])],
        "distance": None if distance is None else numbers(distance[:, item]),
        "detail": numbers(path.detail()[:, item]),
    }


def plane(path: tcd.Trajectory, item: int) -> dict[str, list | None]:
    found = path.plane(item)
    return {
        "path": numbers(found.path),
        "reference": numbers(found.reference),
        "explained": numbers(torch.as_tensor(found.explained)),
    }


def painted(path: tcd.Trajectory, painter: Painter, chosen: int) -> dict[str, list[Tensor]]:
    """Pictures [n, H, W, 3] of every item: of its clean predictions, "x0", and of its noisy states, "x_t"."""
    count, batch = path.x0.shape[:2]
    others_fast = 2 * count * batch > DECODED
    return {
        kind: [painter.paint(states[:, item], others_fast and item != chosen) for item in range(batch)]
        for kind, states in (("x0", path.x0), ("x_t", path.x_t))
    }


def run_of(name: str, path: tcd.Trajectory, pictures: dict[str, list[Tensor]], folder: Folder) -> dict[str, Any]:
    """One run for the front end, its pictures saved."""

    def saved(kind: str, item: int) -> list[dict[str, str]]:
        frames = pictures[kind][item]
        return [folder.picture(f"{name}_{item}_{kind}_{i}", frame) for i, frame in enumerate(frames)]

    items = [
        {kind: saved(kind, item) for kind in pictures} | {"plane": plane(path, item), "measures": measures(path, item)}
        for item in range(path.x0.shape[1])
    ]
    return {"name": name, **{key: numbers(getattr(path, key)) for key in ("t", "s_prime", "s")}, "items": items}


def other_trajectory(recorder) -> tcd.Trajectory:
    """Raises ValueError for an empty one: nothing but a picture of it makes ComfyUI sample it first."""
    try:
        return recorder.trajectory()
    except ValueError as error:
        raise ValueError(
            f"compare: {error}, before this node runs; TCD KSampler's trajectory always comes so"
        ) from None


def show(recorder, latent: Tensor, item: int, keep: bool, vae, compare=None) -> tuple[dict[str, Any], tuple]:
    """(the view for the front end, the node's outputs: plot, clean and noisy pictures, path of the data file).

    Raises ValueError for an empty trajectory, or an item beyond the batch.
    """
    from ..tcd import plot  # late: matplotlib takes a second

    run, is_of_latent = recorder.run_of(latent)
    path, painter = run.trajectory(), Painter(recorder.latent_format, vae)
    path.item(item)  # for what it raises, before anything is written
    with Folder.make(keep).whole() as folder:
        pictures = painted(path, painter, item)
        runs = [run_of("trajectory", path, pictures, folder)]
        if compare is not None:
            other = other_trajectory(compare)
            runs.append(run_of("compare", other, painted(other, Painter(compare.latent_format, vae), item), folder))
        frames, noisy = pictures["x0"][item], pictures["x_t"][item]
        picture = torch.from_numpy(plot.to_array(plot.draw(path, frames.numpy(), noisy.numpy(), item)))
        as_image(picture).save(folder.file("plot.png"))
        path.save(folder.file("data.safetensors"))
        messages = [painter.missing(one_picture(path.x0[:, item]).shape[1]), "" if is_of_latent else ANOTHER_RUN]
        shown = {
            "steps": len(path),
            "unit": path.unit,
            "held": run.held,
            "message": " ".join(filter(None, messages)),
            "runs": runs,
            "files": {
                "data": folder.reference("data.safetensors"),
                "animation": folder.animation("steps.webp", frames),
                "plot": folder.reference("plot.png"),
            },
        }
        folder.file("view.json").write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")
        return shown, (picture[None], frames, noisy, str(folder.file("data.safetensors")))
