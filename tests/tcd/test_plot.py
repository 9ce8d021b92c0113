"""Pictures of trajectories: what is drawn, not how it looks; and the command that draws a file."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from oracle import SCHEDULES
from PIL import Image

import tcd
from tcd import plot
from tcd.plot.__main__ import main, rough

ROOT = Path(__file__).resolve().parents[2]
SD = tcd.DiscreteVP.scaled_linear()


def sampled(sched: tcd.Schedule, gamma: float, steps: int, shape: tuple[int, ...], end: str) -> tcd.Trajectory:
    noise, generator = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    predict = tcd.as_x0(lambda x, t: 0.5 * x.tanh(), sched, "x0")
    times = tcd.timesteps(sched, steps)
    return tcd.Trajectory.record(tcd.sample(predict, sched, noise, times, gamma, generator=generator, end=end))


def trajectory(
    gamma: float = 0.3,
    steps: int = 4,
    shape: tuple[int, ...] = (2, 4, 8, 8),
    end: str = "x0",
    sched: tcd.Schedule = SD,
    reference: bool = True,
) -> tcd.Trajectory:
    """A sampled one; with exploding noise the schedule's time is ComfyUI's noise level."""
    unit = "sigma" if isinstance(sched, tcd.VarianceExploding) else "t"
    path = replace(sampled(sched, gamma, steps, shape, end), unit=unit)
    return replace(path, reference=sampled(sched, 0.0, steps, shape, end).states) if reference else path


def frames(steps: int = 4, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).random((steps, height, width, 3))


def named(figure: Figure) -> dict[str, Axes]:
    """The panels by their title, or what their vertical axis shows."""
    return {axes.get_title(loc="left") or axes.get_ylabel().split(":")[0]: axes for axes in figure.axes}


def strokes(axes: Axes, label: str) -> np.ndarray:
    """Where the strokes [n, 2] of a line of that name start and end."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_ydata(), dtype=float).reshape(-1, 3)[:, :2]


def legend(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_every_step_goes_down_to_s_prime_and_up_to_s():
    path = trajectory(0.3)
    axes = named(plot.draw(path))["timestep"]
    assert strokes(axes, "denoise: t to s'").tolist() == torch.stack([path.t, path.s_prime], 1).tolist()
    assert strokes(axes, "add noise: s' to s").tolist() == torch.stack([path.s_prime, path.s], 1)[:-1].tolist()
    assert legend(axes) == ["denoise: t to s'", "add noise: s' to s"]


def test_without_noise_nothing_goes_up():
    assert legend(named(plot.draw(trajectory(0.0)))["timestep"]) == ["denoise: t to s'"]


def test_noise_levels_have_a_logarithmic_axis_with_clean_data_at_its_foot():
    path = trajectory(sched=SCHEDULES["exploding"])
    axes = named(plot.draw(path))["noise level sigma"]
    assert axes.get_yscale() == "log"
    down = strokes(axes, "denoise: t to s'")
    assert down[:, 0].tolist() == path.t.tolist()
    assert down[-1, 1] == pytest.approx(path.s_prime[:-1].min().item() / 2)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert {"0.1", "0.3", "1", "3", "10"} <= {*labels}


@pytest.mark.parametrize("sched", ["scaled_linear", "flow", "exploding"])
@pytest.mark.parametrize(("end", "said"), [("x0", ["clean"]), ("t0", [])])
def test_the_clean_end_is_said_where_it_is_one(sched, end, said):
    """Timestep 0 of a discrete schedule is its smallest noise level, of a flow it is clean data."""
    assert words(plot.draw(trajectory(end=end, sched=SCHEDULES[sched])).axes[0]) == said


def test_the_plane_shows_the_path_and_that_without_noise():
    path = trajectory()
    axes, plane = named(plot.draw(path, item=1))["second direction"], path.plane(1)
    assert plane.reference is not None
    for line, wanted in zip(axes.lines, (plane.path, plane.reference), strict=True):
        assert np.stack(line.get_data(), 1).tolist() == wanted.tolist()
    assert legend(axes) == ["as sampled", "without noise (gamma 0)"]
    assert words(axes) == ["start", "end"]
    assert axes.get_xlabel() == f"main direction: {plane.explained[0]:.0%} of spread"


def test_measures_are_those_of_the_item():
    path = trajectory()
    panels, distance = named(plot.draw(path, item=1)), path.distance()
    assert distance is not None
    wanted = {
        "change of prediction": ([2, 3, 4], path.drift()),
        "distance to gamma 0": ([0, 1, 2, 3, 4], distance),
        "fine detail": ([1, 2, 3, 4], path.detail()),
    }
    for name, (steps, values) in wanted.items():
        (line,) = panels[name].lines
        assert np.asarray(line.get_xdata()).tolist() == steps
        np.testing.assert_allclose(np.asarray(line.get_ydata()), values[:, 1])


def test_what_there_is_not_is_left_out():
    def panels(**how) -> set[str]:
        return {*named(plot.draw(trajectory(**how)))}

    ways = {"timestep", "second direction"}
    assert panels(reference=False) == ways | {"change of prediction", "fine detail"}
    assert panels(steps=1) == ways | {"distance to gamma 0", "fine detail"}
    assert panels(shape=(2, 4)) == ways | {"change of prediction", "distance to gamma 0"}
    assert panels(steps=1, shape=(2, 4), reference=False) == ways
    assert legend(named(plot.draw(trajectory(reference=False)))["second direction"]) == ["as sampled"]


def test_pictures_are_drawn_one_for_every_step():
    clean, noisy = frames(), frames() / 2
    panels = named(plot.draw(trajectory(), clean, noisy))
    for name, given_frames in (("clean prediction x0", clean), ("noisy state that the step started from", noisy)):
        shown = [np.asarray(image.get_array()) for image in panels[name].images]
        np.testing.assert_array_equal(shown, given_frames)
        assert words(panels[name]) == ["step 1", "step 2", "step 3", "step 4"]


def test_of_many_pictures_eight_are_drawn_with_the_first_and_the_last():
    given_frames = frames(50)
    axes = named(plot.draw(trajectory(steps=50), given_frames))["clean prediction x0"]
    numbers = [1, 8, 15, 22, 29, 36, 43, 50]
    assert words(axes) == [f"step {number}" for number in numbers]
    for image, number in zip(axes.images, numbers, strict=True):
        np.testing.assert_array_equal(np.asarray(image.get_array()), given_frames[number - 1])


def test_pictures_out_of_range_are_brought_into_it():
    given_frames = np.full((4, 8, 8, 3), [-0.5, 1.5, math.nan])
    for image in named(plot.draw(trajectory(), given_frames))["clean prediction x0"].images:
        assert np.unique(np.asarray(image.get_array()), axis=1).reshape(-1, 3)[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (5, 8, 8, 3), (4, 8, 8, 4), (8, 8, 3)])
def test_pictures_that_do_not_fit_are_named(shape):
    wanted = r"must be \[4, H, W, 3\], a picture for each step; got \[" + ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=f"clean prediction x0: {wanted}"):
        plot.draw(trajectory(), np.zeros(shape))
    with pytest.raises(ValueError, match=f"noisy state .*: {wanted}"):
        plot.draw(trajectory(), frames(), np.zeros(shape))


def test_an_item_beyond_the_batch_is_named():
    with pytest.raises(ValueError, match="item must be below the batch size 2, got 2"):
        plot.draw(trajectory(), frames(), item=2)


@pytest.mark.slow
@given(
    steps=st.integers(1, 12),
    state=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.sampled_from([(2000, 1), (1, 2000)]),
    gamma=st.sampled_from([0.0, 0.3, 1.0]),
    sched=st.sampled_from(["scaled_linear", "flow", "exploding"]),
    reference=st.booleans(),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=25)
def test_any_trajectory_is_drawn(steps, state, size, gamma, sched, reference):
    """Without a warning, as those are errors here, and in a size that can be looked at."""
    path = trajectory(gamma, steps, (1, *state), sched=SCHEDULES[sched], reference=reference)
    pixels = plot.to_array(plot.draw(path, frames(steps, *size), frames(steps, *size)))
    assert pixels.dtype == np.float32
    assert pixels.shape[1:] == (1024, 3)
    assert 600 < len(pixels) < 2000
    assert 0 <= pixels.min() < pixels.max() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_states_of_nothing_but_one_value_are_drawn(value):
    path = trajectory(sched=SCHEDULES["exploding"])
    same = {key: torch.full_like(states, value) for key, states in path.tensors().items() if key not in "s_prime t"}
    plot.to_array(plot.draw(replace(path, **same), np.full((4, 8, 8, 3), value)))


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_no_word_is_cut_off(steps):
    """Every panel, its words included, is within the figure, and nothing of one lies on another."""
    figure = plot.draw(trajectory(steps=steps, sched=SCHEDULES["exploding"]), frames(steps), frames(steps))
    plot.to_array(figure)
    width, height = figure.bbox.size
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    assert len(boxes) == len(figure.axes)
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert not box.padded(-1).count_overlaps(boxes[:i])


def test_what_the_caller_set_for_figures_of_their_own_is_neither_used_nor_changed():
    wanted = plot.to_array(plot.draw(trajectory(), frames()))
    with matplotlib.style.context("dark_background"):
        before = dict(rcParams)
        got = plot.to_array(plot.draw(trajectory(), frames()))
        assert dict(rcParams) == before
    assert np.array_equal(got, wanted)


def test_rough_pictures_are_three_channels_or_their_mean_each_step_brought_into_range():
    ramp = torch.linspace(-1, 1, 5).expand(1, 1, 1, 5)
    three = rough(torch.cat([ramp, 5 * ramp + 3, -ramp, 99 * ramp], 1))
    assert three is not None
    values = 0.5 + ramp.flatten() / (4 * 0.5**0.5)
    np.testing.assert_allclose(three[0, 0], torch.stack([values, values, values.flip(0)], 1), atol=1e-5)
    one = rough(torch.cat([ramp, 3 * ramp], 1))
    assert one is not None
    np.testing.assert_allclose(one[0, 0], values[:, None].expand(5, 3), atol=1e-5)


def test_a_video_s_rough_picture_is_its_first_frame_and_points_and_sound_have_none():
    video = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    picture, first = rough(video), rough(video[:, :, 0])
    assert picture is not None
    assert first is not None
    assert picture.shape == (2, 5, 6, 3)
    assert np.array_equal(picture, first)
    assert rough(video[:, :, 0, 0]) is None
    assert rough(video[:, :, 0, 0, 0]) is None


def test_a_rough_picture_of_one_colour_or_of_nan_is_one():
    for value in (7.0, math.nan, math.inf):
        picture = rough(torch.full((1, 4, 2, 2), value))
        assert picture is not None
        assert (picture == 0.5).all()


def command(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """python -m tcd.plot, in a folder of its own, without a display."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    line = [sys.executable, "-W", "error", "-m", "tcd.plot", *args]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_draws_what_draw_draws(tmp_path: Path):
    path = trajectory()
    path.save(tmp_path / "run.safetensors")
    done = command(tmp_path, "run.safetensors")
    assert (done.returncode, done.stdout, done.stderr) == (0, "plot.png\n", "")
    with Image.open(tmp_path / "plot.png") as image:
        got = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    assert np.array_equal(got, plot.to_array(plot.draw(path, rough(path.x0[:, 0]), rough(path.x_t[:, 0]))))


@pytest.mark.slow
def test_the_command_fails_with_one_line_where_the_file_is_no_trajectory(tmp_path: Path):
    (tmp_path / "run.safetensors").write_text("something else", encoding="utf-8")
    done = command(tmp_path, "run.safetensors")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error: run.safetensors holds no trajectory that can be read" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_the_command_draws_another_item_to_another_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trajectory(shape=(2, 3)).save(tmp_path / "run.safetensors")
    main([str(tmp_path / "run.safetensors"), "--item", "1", "-o", str(tmp_path / "second.svg")])
    assert capsys.readouterr().out == f"{tmp_path / 'second.svg'}\n"
    assert "<svg" in (tmp_path / "second.svg").read_text(encoding="utf-8")


def test_the_command_says_what_it_does(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words_of_it in ("FILE", "--item", "-o PLOT", "rough, as no VAE", "first three channels", "counted from 0"):
        assert words_of_it in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone.safetensors"], "no such trajectory file: gone.safetensors"),
        (["short.safetensors"], "short.safetensors holds no trajectory that can be read"),
        (["run.safetensors", "--item", "2"], "item must be below the batch size 2, got 2"),
        (["run.safetensors", "--item", "-1"], "item must be below the batch size 2, got -1 (the first is 0)"),
        (["run.safetensors", "--item", "first"], "invalid int value: 'first'"),
        (["run.safetensors", "-o", "plot.doc"], "'doc' is not supported"),
        (["run.safetensors", "-o", "gone/plot.png"], "No such file or directory: 'gone/plot.png'"),
        ([], "the following arguments are required: FILE"),
    ],
)
def test_the_command_names_what_is_wrong(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    trajectory().save("run.safetensors")
    Path("short.safetensors").write_bytes(Path("run.safetensors").read_bytes()[:-9])
    with pytest.raises(SystemExit, match=r"^2$"):
        main(args)
    assert message in capsys.readouterr().err
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


@pytest.mark.slow
def test_pyplot_is_never_loaded(tmp_path: Path):
    """It would choose a backend, perhaps one with windows, for the program that only wants a picture."""
    trajectory().save(tmp_path / "run.safetensors")
    code = (
        "import sys, tcd\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from tcd import plot\n"
        "plot.to_array(plot.draw(tcd.Trajectory.load('run.safetensors')))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "TkAgg"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
