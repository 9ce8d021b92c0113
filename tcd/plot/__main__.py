"""Draw a recorded trajectory: noise level, path, pictures and measures of every step.

FILE is what TCD View Trajectory or `tcd.Trajectory.save` wrote. The pictures are rough, as no VAE is at hand: the first
three channels of the states as red, green and blue (fewer: their mean, in grey), each brought to a visible range. Of
videos it is the first frame. States that are no pictures, such as sound, are left out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..trajectory import Trajectory
from . import draw


def rough(states: Tensor) -> np.ndarray | None:
    """Pictures [n, H, W, 3] in [0, 1] of states [n, C, ..., H, W]; None where they have no height and width."""
    if states.ndim < 4:
        return None
    while states.ndim > 4:
        states = states[:, :, 0]
    x = states.float().nan_to_num(0, 0, 0)
    x = x[:, :3] if x.shape[1] >= 3 else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    std, mean = torch.std_mean(x, (-2, -1), keepdim=True, correction=0)
    return ((x - mean) / (4 * std + 1e-6) + 0.5).clamp(0, 1).movedim(1, -1).numpy()


def parsed(args: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tcd.plot", description=__doc__, formatter_class=formatter)
    parser.add_argument("file", metavar="FILE", type=Path, help="the trajectory (.safetensors)")
    parser.add_argument("--item", type=int, default=0, help="which picture of the batch, counted from 0 (default 0)")
    parser.add_argument("-o", "--output", metavar="PLOT", type=Path, default=Path("plot.png"),
                        help="where to write: .png, .svg, .pdf, ... (default plot.png)")  # fmt: skip
    return parser, parser.parse_args(args)


def main(args: list[str] | None = None) -> None:
    parser, given = parsed(args)
    try:
        trajectory = Trajectory.load(given.file)
        one = trajectory.item(given.item)
        draw(one, rough(one.x0[:, 0]), rough(one.x_t[:, 0])).savefig(given.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(f"{given.output}\n")


if __name__ == "__main__":
    main()
