"""The numbers of a run: its rows, where a resumed run goes on, and what TensorBoard gets."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import options
from training.watch import Log, log


@pytest.fixture
def opts(tmp_path):
    return options.Options(output_dir=str(tmp_path), output_name="run", log_every_n_steps=4)


def rows(opts):
    lines = Path(opts.output_dir, "run.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def run(opts, first, last, upto=None, logged=None):
    """A run whose loss is the number of the step."""
    made = Log(opts, first, last)
    for step in range(first + 1, (upto or last) + 1):
        made.add(step, float(step), 0.5, 1e-4, samples=2)
        if step == logged:
            made.row(step, {"ode_error": 0.25})
    made.close()


def test_a_row_is_the_mean_since_the_row_before_and_the_last_step_has_one(opts):
    run(opts, 0, 10)
    assert [(row["step"], row["loss"]) for row in rows(opts)] == [(4, 2.5), (8, 6.5), (10, 9.5)]
    assert set(rows(opts)[0]) == {"step", "loss", "norm", "lr", "samples/s", "seconds"}
    assert (rows(opts)[0]["norm"], rows(opts)[0]["lr"]) == (0.5, 1e-4)


@pytest.mark.parametrize(("step", "place"), [(4, 0), (6, 1), (8, 1)])
def test_other_numbers_join_the_row_of_their_step(opts, step, place):
    run(opts, 0, 8, logged=step)
    assert rows(opts)[place]["ode_error"] == 0.25
    assert rows(opts)[place]["step"] == step
    assert [row["step"] for row in rows(opts)] == sorted({4, step, 8})
    assert [row["loss"] for row in rows(opts) if "loss" in row] == [2.5, 6.5]


def test_numbers_from_before_the_first_step_are_a_row(opts):
    Log(opts, 0, 4).row(0, {"ode_error": 1.0})
    assert rows(opts) == [{"step": 0, "ode_error": 1.0}]


def test_a_resumed_run_goes_on_from_its_step(opts, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(log.time, "monotonic", lambda: float(next(clock)))
    run(opts, 0, 12)
    whole = rows(opts)
    run(opts, 8, 12)
    assert [{**row, "seconds": 0} for row in rows(opts)] == [{**row, "seconds": 0} for row in whole]
    seconds = [row["seconds"] for row in rows(opts)]
    assert seconds == sorted(seconds)
    assert seconds[1] > 0
    assert [path.name for path in Path(opts.output_dir).iterdir()] == ["run.jsonl"]


def test_a_new_run_starts_anew(opts):
    run(opts, 0, 12)
    run(opts, 0, 4)
    assert [row["step"] for row in rows(opts)] == [4]


def test_a_row_that_was_cut_off_in_writing_is_written_again(opts):
    run(opts, 0, 8)
    path = Path(opts.output_dir, "run.jsonl")
    path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    run(opts, 8, 12)
    assert [row["step"] for row in rows(opts)] == [4, 12]


def test_a_log_that_cannot_be_cut_off_is_left_as_it_was(opts, monkeypatch):
    run(opts, 0, 12)
    before = rows(opts)

    def full(self, data):
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        Log(opts, 4, 12)
    assert rows(opts) == before


def test_a_full_disk_costs_a_row_and_not_the_run(opts, monkeypatch, caplog):
    made, written = Log(opts, 0, 12), Path.open

    def full(self, *args, **named):
        raise OSError(28, "No space left on device")

    for step in range(1, 13):
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(Path, "open", full if step == 8 else written)
            made.add(step, float(step), 0.5, 1e-4, samples=2)
    assert [row["step"] for row in rows(opts)] == [4, 12]
    assert "step 8 was not logged, the run goes on" in caplog.text


def test_the_progress_bar_shows_a_mean_and_the_speed(opts, monkeypatch):
    clock = iter([0, 1, 2, 3, 4, 105, 106, 107, 108])  # a second a step, and once a hundred for a picture
    monkeypatch.setattr(log.time, "monotonic", lambda: float(next(clock)))
    made = Log(opts, 0, 8)
    shown = [made.add(step, float(step), 0.5, 1e-4, samples=3) for step in range(1, 9)]
    assert shown[-1] == {"loss": "4.50000", "samples/s": "3"}
    assert [(row["samples/s"], row["seconds"]) for row in rows(opts)] == [(3, 4), (3, 108)]


def events(folder):
    """What TensorBoard itself reads of a folder."""
    return EventAccumulator(str(folder)).Reload()


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_tensorboard_gets_numbers_and_pictures(opts, tmp_path, folder):
    named = {"log_with": "tensorboard", "logging_dir": str(tmp_path / folder) if folder else ""}
    opts = options.Options(**vars(opts) | named)
    Log.check(opts)
    Image.new("RGB", (8, 6), "red").save(tmp_path / "sheet.png")
    made = Log(opts, 0, 4)
    made.picture(0, tmp_path / "sheet.png")
    for step in range(1, 5):
        made.add(step, float(step), 0.5, 1e-4, samples=2)
    made.row(4, {"ode_error": 0.25})
    made.close()
    found = events(tmp_path / (folder or "logs") / "run")
    assert set(found.Tags()["scalars"]) == {"loss", "norm", "lr", "samples/s", "seconds", "ode_error"}
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(4, 2.5)]
    (picture,) = found.Images("samples")
    assert (picture.step, picture.width, picture.height) == (0, 8, 6)


def test_in_tensorboard_too_a_resumed_run_goes_on_from_its_step(opts, tmp_path):
    opts = options.Options(**vars(opts) | {"log_with": "tensorboard"})
    run(opts, 0, 12)
    run(opts, 4, 8)
    assert [event.step for event in events(tmp_path / "logs" / "run").Scalars("loss")] == [4, 8]


def test_a_missing_tensorboard_is_said_before_the_run(opts, monkeypatch):
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    Log.check(opts)
    with pytest.raises(ValueError, match="log_with tensorboard needs the package tensorboard: pip install"):
        Log.check(options.Options(log_with="tensorboard"))
