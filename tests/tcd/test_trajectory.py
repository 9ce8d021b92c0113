"""What is recorded of a sampling run, how it is measured, kept in a file and read again."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import SCHEDULES, Gaussian, self_consistent
from safetensors.torch import save_file

import tcd
from tcd.metrics import high_frequency_energy

F64 = torch.float64
SD = tcd.DiscreteVP.scaled_linear()
STATES = ("t", "s_prime", "s", "x_t", "x0", "x_s_prime", "x_s")

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)  # of one state [C, ...]: points to videos


def steps(predict=None, gamma=0.3, dtype=torch.float32, n=4, end="x0"):
    x = Gaussian(SD).draw(999, (2, 3, 4)).to(dtype)
    predict = predict or tcd.as_x0(lambda x, t: 0.9 * x, SD)
    return tcd.sample(predict, SD, x, tcd.timesteps(SD, n), gamma, generator=torch.Generator().manual_seed(0), end=end)


def along(*points: list[float], reference: list[list[float]] | None = None) -> tcd.Trajectory:
    """A trajectory of one item through these points, without noise."""
    path = torch.tensor(points)[:, None]
    times = torch.linspace(1, 0, len(path))
    given = None if reference is None else torch.tensor(reference)[:, None]
    return tcd.Trajectory(
        times[:-1], times[1:], times[1:], path[:-1], path[1:], path[1:], path[1:], "sigma", reference=given
    )


def random(n: int, batch: int, shape: tuple[int, ...], seed: int = 0, reference: bool = True) -> tcd.Trajectory:
    """A trajectory of nothing but noise."""
    generator = torch.Generator().manual_seed(seed)
    x_t, x0, x_s_prime, x_s = torch.randn(4, n, batch, *shape, generator=generator)
    x_s[:-1] = x_t[1:]
    times = torch.linspace(14, 0, n + 1)
    other = torch.randn(n + 1, batch, *shape, generator=generator) if reference else None
    return tcd.Trajectory(times[:-1], times[1:], times[1:], x_t, x0, x_s_prime, x_s, "sigma", other)


def test_it_holds_every_step_as_it_was_sampled():
    trajectory = tcd.Trajectory.record(steps())
    assert len(trajectory) == 4
    assert trajectory.unit == "t"
    for i, step in enumerate(steps()):
        for name in STATES:
            assert torch.equal(getattr(trajectory, name)[i], getattr(step, name))


def test_times_are_n_and_states_n_b_and_the_rest():
    trajectory = tcd.Trajectory.record(steps())
    for name in STATES:
        assert getattr(trajectory, name).shape == ((4, 2, 3, 4) if name.startswith("x") else (4,))


def test_the_final_state_is_the_sample():
    *_, last = steps(end="t0")
    assert torch.equal(tcd.Trajectory.record(steps(end="t0")).final, last.x_s)


def test_a_record_of_one_step_has_no_drift():
    trajectory = tcd.Trajectory.record(steps(n=1))
    assert trajectory.drift().shape == (0, 2)


def test_what_is_recorded_is_not_what_a_sampler_writes_to_later():
    def in_place():
        state = torch.zeros(1, 2)
        for i in range(3):
            t, s_prime, s = torch.tensor([3.0, 1.0, 2.0]) - i
            yield tcd.Step(i, t, s_prime, s, state, state, state, state)
            state.add_(1)

    assert tcd.Trajectory.record(in_place()).x_s[:, 0, 0].tolist() == [0, 1, 2]


def test_nothing_is_recorded_of_nothing():
    with pytest.raises(ValueError, match="no step was sampled"):
        tcd.Trajectory.record([])


def test_drift_is_the_root_mean_square_change_of_the_prediction():
    trajectory = tcd.Trajectory.record(steps())
    drift = trajectory.drift()
    assert drift.shape == (3, 2)
    for i in range(3):
        for b in range(2):
            change = trajectory.x0[i + 1, b] - trajectory.x0[i, b]
            assert drift[i, b].item() == pytest.approx((change.norm() / 12**0.5).item(), rel=1e-6)


def test_a_self_consistent_student_does_not_drift():
    """Eq. 18: without noise it says the same clean data all along its path. Noise moves it to another path."""
    predict = self_consistent(SD)
    assert tcd.Trajectory.record(steps(predict, gamma=0.0)).drift().max() < 1e-5  # x0 is of order 2, in float32
    assert tcd.Trajectory.record(steps(predict, gamma=0.3)).drift().min() > 0.1


def test_a_perfect_teacher_drifts():
    assert tcd.Trajectory.record(steps(Gaussian(SD).x0, gamma=0.0, dtype=torch.float64)).drift().min() > 0.01


def test_the_states_are_the_start_and_where_every_step_landed():
    trajectory = tcd.Trajectory.record(steps())
    assert trajectory.states.shape == (5, 2, 3, 4)
    assert torch.equal(trajectory.states[:-1], trajectory.x_t)
    assert torch.equal(trajectory.states[1:], trajectory.x_s)


def test_the_states_without_noise_are_a_reference_for_another_run():
    plain = tcd.Trajectory.record(steps(gamma=0.0))
    noisy = tcd.Trajectory.record(steps(gamma=0.3), reference=plain.states)
    assert noisy.reference is not None
    assert torch.equal(noisy.reference, plain.states)
    assert noisy.reference.data_ptr() != plain.states.data_ptr()
    assert plain.reference is None


def test_what_was_injected_is_noise_of_the_variance_that_was_missing():
    """Variance-exploding, as ComfyUI's units are: the noise alone, and none in the last step."""
    sched = SCHEDULES["exploding"]
    x = Gaussian(sched).draw(sched.last, (50, 4, 8, 8))
    generator = torch.Generator().manual_seed(0)
    run = tcd.sample(Gaussian(sched).x0, sched, x, tcd.timesteps(sched, 4), 0.5, generator=generator)
    trajectory = tcd.Trajectory.record(run, "sigma")
    missing = (trajectory.s.square() - trajectory.s_prime.square()).sqrt()
    assert trajectory.injected.shape == (4, 50, 4, 8, 8)
    torch.testing.assert_close(trajectory.injected.flatten(1).std(1), missing.double(), rtol=0.03, atol=0)
    assert not trajectory.injected[-1].any()


def test_distance_is_the_part_of_the_reference_s_root_mean_square():
    trajectory = along([3.0, 4.0], [1.0, 1.0], [0.0, 2.0], reference=[[3.0, 4.0], [1.0, -1.0], [0.0, 1.0]])
    distance = trajectory.distance()
    assert distance is not None
    torch.testing.assert_close(distance, torch.tensor([[0.0], [2 / 2**0.5], [1.0]]))
    assert along([3.0, 4.0], [1.0, 1.0]).distance() is None


def test_the_distance_to_nothing_is_not_divided():
    distance = along([3.0, 3.0], [0.0, 0.0], reference=[[0.0, 0.0], [0.0, 0.0]]).distance()
    assert distance is not None
    assert distance.flatten().tolist() == [3, 0]


def test_the_detail_of_pictures_is_their_high_frequency_energy():
    pictures = torch.rand(2, 3, 16, 24, 3, generator=torch.Generator().manual_seed(0))
    trajectory = replace(random(2, 3, (3, 16, 24)), x0=pictures.movedim(-1, 2))
    wanted = torch.stack([high_frequency_energy(batch) for batch in pictures])
    assert torch.equal(trajectory.detail(), wanted)
    torch.testing.assert_close(replace(trajectory, x0=7 - 50 * trajectory.x0).detail(), wanted)  # of any range


def test_the_detail_of_lines_is_all_and_of_planes_is_none():
    fine = (torch.arange(16) % 2).float().expand(1, 1, 4, 16, 16)
    videos = fine[:, :, :, None].expand(1, 1, 4, 5, 16, 16)
    sound = fine[..., 0, :]
    for x0 in (fine, videos, sound):
        assert replace(random(1, 1, (*x0.shape[2:],)), x0=x0).detail().tolist() == [[1]]
        assert replace(random(1, 1, (*x0.shape[2:],)), x0=0 * x0 + 0.3).detail().tolist() == [[0]]


def test_points_have_no_detail():
    assert random(3, 2, (5,)).detail().tolist() == [[0, 0]] * 3


def test_the_plane_holds_a_cross_where_it_is():
    plane = along([-2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0]).plane()
    wanted = torch.tensor([[-2.0, 0], [2, 0], [0, -1], [0, 1]], dtype=F64)  # turned, so that it is first below
    torch.testing.assert_close(plane.path, wanted)
    torch.testing.assert_close(plane.explained, torch.tensor([0.8, 0.2], dtype=F64))
    assert plane.reference is None


@pytest.mark.parametrize(
    ("points", "wanted"), [([0, 3, 9], [-4, -1, 5]), ([9, 6, 0], [-4, -1, 5]), ([5, 0], [-2.5, 2.5])]
)
def test_a_straight_path_starts_on_the_left_and_has_one_direction(points, wanted):
    plane = along(*([0.6 * at, -0.8 * at] for at in points)).plane()
    torch.testing.assert_close(plane.path[:, 0], torch.tensor(wanted, dtype=F64), rtol=1e-6, atol=0)
    assert plane.path[:, 1].tolist() == [0] * len(points)
    assert plane.explained.tolist() == [1, 0]


def test_states_that_are_all_alike_lie_at_0():
    plane = along(*[[0.1, 0.7]] * 3, reference=[[0.1, 0.7]] * 3).plane()
    assert plane.reference is not None
    for zero in (plane.path, plane.reference, plane.explained):
        assert not zero.any()


def test_the_reference_is_in_the_same_plane():
    start, up, down = [-3.0, 0.0, 0.0], [1.0, 2.0, 0.0], [1.0, -2.0, 0.0]
    plane = along(start, up, reference=[start, down]).plane()
    assert plane.reference is not None
    path, reference = ([*map(tuple, side.round(decimals=9).tolist())] for side in (plane.path, plane.reference))
    assert (path, reference) == ([(-2, 0), (2, -2)], [(-2, 0), (2, 2)])


@given(n=st.integers(1, 12), batch=st.integers(1, 3), shape=shapes, seed=st.integers(0, 9), reference=st.booleans())
@settings(deadline=None, derandomize=True, database=None, max_examples=40)
def test_a_plane_is_a_shadow_of_the_states(n, batch, shape, seed, reference):
    """Centred, with directions in order that are no longer than the whole, and nothing farther apart than it was."""
    one = random(n, batch, shape, seed, reference).item(batch - 1)
    plane, states = random(n, batch, shape, seed, reference).plane(batch - 1), one.states
    points = plane.path
    assert (plane.reference is None) == (one.reference is None)
    if plane.reference is not None and one.reference is not None:
        states, points = torch.cat([states, one.reference]), torch.cat([points, plane.reference])
    states = states.flatten(1).double()
    torch.testing.assert_close(points.mean(0), torch.zeros(2, dtype=F64))
    assert (torch.cdist(points, points) <= torch.cdist(states, states) * (1 + 1e-6) + 1e-6).all()
    first, second = plane.explained.tolist()
    assert 0 <= second <= first <= first + second <= 1 + 1e-9
    parts = points.square().sum(0) / (states - states.mean(0)).square().sum()
    torch.testing.assert_close(plane.explained, parts)
    assert (points[0] <= 1e-3 * points.abs().amax(0)).all()


@given(n=st.integers(1, 6), batch=st.integers(1, 3), shape=shapes, reference=st.booleans())
@settings(deadline=None, derandomize=True, database=None, max_examples=40)
def test_measures_are_finite_numbers_of_every_step_and_picture(n, batch, shape, reference):
    trajectory = random(n, batch, shape, reference=reference)
    measured = {"drift": n - 1, "distance": n + 1, "detail": n}
    for name, count in measured.items():
        values = getattr(trajectory, name)()
        assert (values is None) == (name == "distance" and not reference)
        if values is not None:
            assert values.shape == (count, batch)
            assert values.isfinite().all()
            for item in range(batch):
                one = getattr(trajectory.item(item), name)()
                torch.testing.assert_close(one, values[:, item : item + 1])


def test_a_state_that_is_not_finite_spoils_only_what_is_of_it():
    trajectory = random(4, 2, (3, 8, 8), reference=True)
    for states in (trajectory.x0, trajectory.x_s):
        states[1, 0, 0, 0, 0] = math.nan
    plane, distance = trajectory.plane(0), trajectory.distance()
    assert distance is not None
    assert plane.path.isnan().all(1).tolist() == [False, False, True, False, False]
    assert plane.explained.isfinite().all()
    assert distance.isnan().tolist() == [[False, False]] * 2 + [[True, False]] + [[False, False]] * 2
    assert trajectory.detail().isnan().tolist() == [[False, False], [True, False], [False, False], [False, False]]
    assert trajectory.plane(1).path.isfinite().all()


def test_nothing_but_nan_has_no_plane():
    plane = along(*[[math.nan, 1.0]] * 3).plane()
    assert plane.path.isnan().all()
    assert plane.explained.tolist() == [0, 0]


def test_half_precision_is_measured_in_single():
    trajectory = along([60000.0, 60000.0], [1.0, 1.0], reference=[[60000.0, 60000.0], [2.0, 2.0]])
    half = {key: value.half() for key, value in trajectory.tensors().items()}
    distance = replace(trajectory, **half).distance()
    assert distance is not None
    assert distance.flatten().tolist() == [0, 0.5]


def test_one_item_is_a_trajectory_of_its_own():
    trajectory = random(3, 2, (4, 5, 6))
    one = trajectory.item(1)
    for key, tensor in one.tensors().items():
        whole = getattr(trajectory, key)
        assert torch.equal(tensor, whole if key in ("t", "s_prime", "s") else whole[:, 1:])
    assert one.unit == "sigma"


@pytest.mark.parametrize("item", [-1, 2, 99])
def test_an_item_beyond_the_batch_is_named(item):
    for ask in (random(3, 2, (4,)).item, random(3, 2, (4,)).plane):
        with pytest.raises(ValueError, match=rf"item must be below the batch size 2, got {item} \(the first is 0\)"):
            ask(item)


def test_bytes_are_those_of_all_tensors():
    assert along([1.0, 2.0], [3.0, 4.0]).nbytes == 3 * 4 + 4 * 8
    assert along([1.0, 2.0], [3.0, 4.0], reference=[[1.0, 2.0], [3.0, 4.0]]).nbytes == 3 * 4 + 4 * 8 + 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "seconds"}, "unit must be one of t, sigma; got 'seconds'"),
        ({"x_t": torch.zeros(0, 1, 2)}, r"states must be \[n >= 1, B, C, ...\], got x_t \[0, 1, 2\]"),
        ({"x_t": torch.zeros(2, 2)}, r"states must be \[n >= 1, B, C, ...\], got x_t \[2, 2\]"),
        ({"s": torch.zeros(3)}, r"s must be \[2\], as x_t is \[2, 1, 2\]; got \[3\]"),
        ({"x0": torch.zeros(2, 1, 3)}, r"x0 must be \[2, 1, 2\], as x_t is \[2, 1, 2\]; got \[2, 1, 3\]"),
        ({"reference": torch.zeros(2, 1, 2)}, r"reference must be \[3, 1, 2\], as x_t is \[2, 1, 2\]; got \[2, 1, 2\]"),
    ],
)
def test_what_is_no_trajectory_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(along([0.0, 0.0], [1.0, 1.0], [2.0, 2.0]), **changes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_file_gives_back_every_bit(tmp_path, dtype):
    trajectory = tcd.Trajectory.record(steps(dtype=dtype), unit="sigma")
    trajectory = replace(trajectory, reference=trajectory.states + 1)
    trajectory.save(tmp_path / "new" / "run.safetensors")
    again = tcd.Trajectory.load(tmp_path / "new" / "run.safetensors")
    assert again.unit == "sigma"
    assert again.tensors().keys() == {*STATES, "reference"}
    for name, ours in trajectory.tensors().items():
        theirs = getattr(again, name)
        assert theirs.dtype == ours.dtype
        assert torch.equal(theirs, ours)


def test_a_file_without_a_reference_has_none(tmp_path):
    tcd.Trajectory.record(steps()).save(tmp_path / "run.safetensors")
    assert tcd.Trajectory.load(tmp_path / "run.safetensors").reference is None


def test_tensors_that_share_memory_and_parts_of_others_are_saved(tmp_path):
    for trajectory in (along([0.0, 1.0], [2.0, 3.0]), random(3, 3, (2, 4)).item(1)):
        trajectory.save(tmp_path / "run.safetensors")
        again = tcd.Trajectory.load(tmp_path / "run.safetensors")
        for name, ours in trajectory.tensors().items():
            assert torch.equal(getattr(again, name), ours)


def test_saving_leaves_one_file_and_replaces_an_old_one(tmp_path):
    for n in (4, 2):
        tcd.Trajectory.record(steps(n=n)).save(str(tmp_path / "run.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]
    assert len(tcd.Trajectory.load(tmp_path / "run.safetensors")) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such trajectory file: .*gone.safetensors"):
        tcd.Trajectory.load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"not a trajectory", bytes(range(256)) * 8], ids=len)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "run.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run.safetensors holds no trajectory"):
        tcd.Trajectory.load(path)


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    tcd.Trajectory.record(steps()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"run.safetensors holds no trajectory"):
        tcd.Trajectory.load(path)


def written(path, header: object, **changes: torch.Tensor) -> None:
    """A trajectory's file with another header, or other tensors."""
    tensors = {key: tensor.clone() for key, tensor in along([0.0, 1.0], [2.0, 3.0]).tensors().items()}
    save_file(tensors | changes, path, {"tcd.trajectory": json.dumps(header)})


@pytest.mark.parametrize(
    ("header", "changes", "message"),
    [
        ({"version": 2, "unit": "t"}, {}, "it is of version 2, and this tcd reads version 1 alone"),
        ({"unit": "t"}, {}, "it is of version None, and this tcd reads version 1 alone"),
        ({"version": 1}, {}, "unit must be one of t, sigma; got None"),
        ({"version": 1, "unit": "eV"}, {}, "unit must be one of t, sigma; got 'eV'"),
        ([1], {}, r"its tcd.trajectory is no JSON object: \[1\]"),
        ({"version": 1, "unit": "t"}, {"x0": torch.ones(2, 1, 2)}, r"x0 must be \[1, 1, 2\]"),
        ({"version": 1, "unit": "t"}, {"reference": torch.ones(1, 1, 2)}, r"reference must be \[2, 1, 2\]"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_says_how(tmp_path, header, changes, message):
    written(tmp_path / "run.safetensors", header, **changes)
    with pytest.raises(ValueError, match=rf"run.safetensors holds no trajectory that can be read: .*{message}"):
        tcd.Trajectory.load(tmp_path / "run.safetensors")


def test_other_tensors_are_no_trajectory(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"a": torch.ones(2)}, path, {"tcd.trajectory": '{"version": 1, "unit": "t"}'})
    with pytest.raises(ValueError, match=r"lora.safetensors holds no trajectory"):
        tcd.Trajectory.load(path)
    save_file({name: torch.ones(2) for name in STATES}, path)
    with pytest.raises(ValueError, match=r"lora.safetensors holds no .*: it was not written by tcd.Trajectory.save"):
        tcd.Trajectory.load(path)
