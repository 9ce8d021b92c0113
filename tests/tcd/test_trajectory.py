"""What is recorded of a sampling run, kept in a file and read again."""

import pytest
import torch
from oracle import Gaussian, self_consistent
from safetensors.torch import save_file

import tcd

SD = tcd.DiscreteVP.scaled_linear()
STATES = ("t", "s_prime", "s", "x_t", "x0", "x_s_prime", "x_s")


def steps(predict=None, gamma=0.3, dtype=torch.float32, n=4, end="x0"):
    x = Gaussian(SD).draw(999, (2, 3, 4)).to(dtype)
    predict = predict or tcd.as_x0(lambda x, t: 0.9 * x, SD)
    return tcd.sample(predict, SD, x, tcd.timesteps(SD, n), gamma, generator=torch.Generator().manual_seed(0), end=end)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_file_gives_back_every_bit(tmp_path, dtype):
    trajectory = tcd.Trajectory.record(steps(dtype=dtype), unit="sigma")
    trajectory.save(tmp_path / "new" / "run.safetensors")
    again = tcd.Trajectory.load(tmp_path / "new" / "run.safetensors")
    assert again.unit == "sigma"
    for name in STATES:
        ours, theirs = getattr(trajectory, name), getattr(again, name)
        assert theirs.dtype == ours.dtype
        assert torch.equal(theirs, ours)


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


def test_other_tensors_are_no_trajectory(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"a": torch.ones(2)}, path, {"tcd.trajectory": '{"version": 1, "unit": "t"}'})
    with pytest.raises(ValueError, match=r"lora.safetensors holds no trajectory"):
        tcd.Trajectory.load(path)
    save_file({name: torch.ones(2) for name in STATES}, path)
    with pytest.raises(ValueError, match=r"lora.safetensors holds no trajectory"):
        tcd.Trajectory.load(path)
