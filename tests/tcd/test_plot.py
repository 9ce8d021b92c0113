"""Pictures of trajectories: what is drawn, not how it looks."""

import numpy as np
import pytest
import torch

import tcd
from tcd import plot


def trajectory(gamma: float) -> tcd.Trajectory:
    sched = tcd.DiscreteVP.scaled_linear()
    predict = tcd.as_x0(lambda x, t: torch.zeros_like(x), sched)
    noise, generator = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.Generator()
    return tcd.Trajectory.record(tcd.sample(predict, sched, noise, tcd.timesteps(sched, 4), gamma, generator=generator))


@pytest.mark.parametrize(("gamma", "ups"), [(0.0, 0), (0.3, 3)])
def test_every_step_goes_down_and_with_gamma_all_but_the_last_go_up_again(gamma: float, ups: int):
    axes = plot.draw(trajectory(gamma)).axes[0]
    slopes = [np.diff(np.asarray(line.get_ydata(), dtype=float)).item() for line in axes.lines]
    assert sum(slope < 0 for slope in slopes) == 4
    assert sum(slope > 0 for slope in slopes) == ups


def test_the_clean_end_is_said_and_the_legend_names_each_kind_once():
    axes = plot.draw(trajectory(0.3)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["clean"]
    assert axes.get_legend_handles_labels()[1] == ["denoise: t to s'", "add noise: s' to s"]


def test_frames_are_drawn_one_for_every_step():
    figure = plot.draw(trajectory(0.3), np.zeros((4, 16, 16, 3)))
    assert len(figure.axes[1].images) == 4


def test_a_drawing_is_pixels_between_0_and_1():
    pixels = plot.to_array(plot.draw(trajectory(0.3)))
    assert pixels.dtype == np.float32
    assert pixels.shape[2] == 3
    assert 0 <= pixels.min() < pixels.max() <= 1
