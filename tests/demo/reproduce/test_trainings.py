"""Students that are distilled several at a time, with processes that only do as if."""

import json
import re
import sys
from concurrent import futures
from dataclasses import replace
from threading import Timer

import pytest

from demo.reproduce import trainings
from demo.reproduce.recipes import recipes
from demo.reproduce.scale import SCALES
from demo.reproduce.trainings import ROOT, Training, TrainingError, distil
from training import options
from training.optim.schedules import warm_up

BASE = trainings.BASE.read_text(encoding="utf-8")

# Stands for the trainer: what it does is a list of words, and what it did can be read in `events`.
FAKE = """
import json, os, sys, time
from pathlib import Path

folder, name, doing = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
events = folder / "events"

def tell(what):
    with events.open("a") as file:
        file.write(f"{what} {name}\\n")

def wait_for(event):
    end = time.monotonic() + 30
    while event not in events.read_text().splitlines():
        if time.monotonic() > end:
            sys.exit(f"{name} waited too long for {event}")
        time.sleep(0.01)

if sys.argv[4:] == ["--dry_run"]:
    tell("read")
    (folder / "read").write_text(os.environ["OMP_NUM_THREADS"])
    sys.exit("unread" in doing and "no pictures")
tell("begin")
there = sorted(path.name for path in folder.glob(f"{name}*"))
(folder / "told").write_text(json.dumps({"files": there, "threads": os.environ["OMP_NUM_THREADS"]}))
for word in doing:
    if word == "log":
        (folder / f"{name}.jsonl").write_text('{"step": 1}\\n')
        tell("log")
    elif word == "fail":
        (folder / f"{name}-state.pt").write_text("half of it")
        tell("fail")
        print("\\n".join(f"line {i}" for i in range(9)) + "\\rdistil: 50%\\nerror: no luck")
        sys.exit(3)
    else:
        wait_for(word)
(folder / f"{name}.safetensors").write_text("trained")
tell("end")
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "loras"


@pytest.fixture
def made(folder, monkeypatch):
    """Makes trainings by name, each of which does what is asked of it, two at a time."""
    doing = {}
    monkeypatch.setattr(
        Training,
        "command",
        lambda self: [sys.executable, "-I", "-S", "-c", FAKE, str(folder), self.name, json.dumps(doing[self.name])],
    )
    monkeypatch.setattr(trainings, "jobs", lambda: 2)
    monkeypatch.setattr(trainings, "wait", lambda waited, seconds: futures.wait(waited, seconds / 50))

    def make(**words):
        doing.update(words)
        return [Training(name, {"max_train_steps": 1}, folder, folder) for name in words]

    return make


def events(folder):
    return (folder / "events").read_text().splitlines()


def tell(folder, event):
    with (folder / "events").open("a") as file:
        file.write(f"{event}\n")


def told(folder):
    return json.loads((folder / "told").read_text())


# --- In which order --------------------------------------------------------------------------------------


def test_the_caches_are_filled_first_and_then_as_many_run_as_there_are_jobs(folder, made):
    every = made(a=["begin b"], b=["end a", "begin c"], c=["end b", "begin d"], d=["end c"])
    distil(every)  # each waits for the next one, or for the one that has to end before
    first, *found = events(folder)
    assert first == "read a"
    running = set()
    for what, name in (event.split() for event in found):
        (running.discard if what == "end" else running.add)(name)
        assert len(running) <= 2
    assert all(training.done() for training in every)


def test_one_that_is_done_is_not_run_again(folder, made):
    first, second = made(a=["log"], b=["log"])
    distil([first])
    before = events(folder)
    distil([first])
    assert events(folder) == before
    distil([first, second])
    assert [event for event in events(folder) if event not in before] == ["read b", "begin b", "log b", "end b"]
    assert len(events(folder)) == 2 * len(before)


def test_nothing_to_train_is_nothing_to_do(capsys):
    distil([])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(4, 2, "2"), (2, 2, "1"), (1, 2, "1")])
def test_cores_are_shared(folder, made, monkeypatch, cores, jobs, threads):
    monkeypatch.setattr(trainings.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(trainings, "jobs", lambda: jobs)
    distil(made(a=["log"]))
    assert told(folder)["threads"] == threads
    assert (folder / "read").read_text() == str(cores)


def test_a_gpu_trains_one_at_a_time_and_every_core_one(monkeypatch):
    monkeypatch.setattr(trainings.os, "cpu_count", lambda: 6)
    for there, wanted in ((True, 1), (False, 6)):
        monkeypatch.setattr(trainings.torch.cuda, "is_available", lambda there=there: there)
        assert trainings.jobs() == wanted


# --- What ends early -------------------------------------------------------------------------------------


def test_one_that_fails_is_told_with_its_last_words_and_the_queued_ones_are_not_begun(folder, made, monkeypatch):
    every = made(a=["log", "known"], b=["log", "fail"], c=["log"], d=["log"])

    def watched(waited, seconds):
        found = futures.wait(waited, 0.02)
        if any(future.exception() for future in found.done):
            tell(folder, "known")
        return found

    monkeypatch.setattr(trainings, "wait", watched)
    said = r"training b ended with code 3 \(.*b\.out\):\nline 6\nline 7\nline 8\ndistil: 50%\nerror: no luck$"
    with pytest.raises(TrainingError, match=said):
        distil(every)
    assert sorted(event for event in events(folder) if event.startswith("begin")) == ["begin a", "begin b"]
    assert [training.done() for training in every] == [True, False, False, False]  # what ran came to its end


def test_where_the_pictures_cannot_be_encoded_none_is_begun(folder, made):
    with pytest.raises(TrainingError, match=r"training a ended with code 1 (?s:.*)no pictures$"):
        distil(made(a=["unread"], b=["log"]))
    assert events(folder) == ["read a"]


def test_one_that_ended_early_goes_on_with_what_it_left(folder, made):
    with pytest.raises(TrainingError):
        distil(made(a=["fail"]))
    distil(made(a=["log"]))
    assert "a-state.pt" in told(folder)["files"]


def test_an_interrupted_one_is_waited_for_and_no_other_is_begun(folder, made, monkeypatch):
    every = made(a=["log", "stop"], b=["log"], c=["log"])
    monkeypatch.setattr(trainings, "jobs", lambda: 1)

    def interrupted(waited, seconds):
        if not every[0].rows():
            return futures.wait(waited, 0.02)
        Timer(0.3, lambda: tell(folder, "stop")).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(trainings, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distil(every)
    assert events(folder) == ["read a", "begin a", "log a", "stop", "end a"]


# --- What a student follows from -------------------------------------------------------------------------


def test_another_recipe_begins_anew_and_leaves_other_students_alone(folder, made):
    every = made(a=["log"], ab=["log"])
    distil(every)
    for name in ("a-state.pt", "a-step00000250.safetensors", "ab-state.pt"):
        (folder / name).write_text("old")
    other = replace(every[0], changes={"max_train_steps": 2})
    assert not other.done()
    distil([other, every[1]])
    assert told(folder)["files"] == ["a.out", "a.recipe", *sorted(path.name for path in folder.glob("ab*"))]
    assert other.done()
    assert not every[0].done()
    assert every[1].done()
    assert (folder / "ab-state.pt").read_text() == "old"


@pytest.fixture
def recipe(folder, tmp_path, monkeypatch):
    """The recipe of a training, for the base recipe and the teacher's file as they are, or with another content."""

    def made(base=BASE, teacher="weights", **changes):
        for name, text in (("BASE", base), ("CHECKPOINT", teacher)):
            path = tmp_path / f"{name} of {len(list(tmp_path.iterdir()))}"
            path.write_text(text, encoding="utf-8")
            monkeypatch.setattr(trainings, name, path)
        return Training("a", changes, folder, folder).recipe

    return made


def test_a_recipe_is_what_the_training_follows_from(recipe):
    changes = {"tcf": "2", "ends": 1}
    assert recipe(**changes) == recipe(ends=1, tcf="2") == recipe(BASE + "# a remark\n", **changes)
    others = [
        recipe(**changes | {"ends": 2}),
        recipe(**changes, max_train_steps=2),
        recipe(BASE + "lr_scheduler_num_cycles = 2\n", **changes),
        recipe(BASE, "other weights", **changes),
    ]
    assert len({recipe(**changes), *others}) == 5


# --- What it says of itself ------------------------------------------------------------------------------


def test_progress_is_what_the_log_says_also_while_its_last_row_is_written(folder):
    folder.mkdir()
    training = Training("a", {"max_train_steps": 30}, folder, folder)
    assert training.steps_done() == 0
    (folder / "a.jsonl").write_text('{"step": 10, "loss": 1.0}\n{"step": 20, "loss": 0.5}\n{"step": 3')
    assert [row["step"] for row in training.rows()] == [10, 20]
    assert training.steps_done() == 20
    training.lora.touch()
    training.stamp.write_text(training.recipe)
    assert training.steps_done() == 30


# --- The trainer's own command line ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_the_trainer_takes_the_command_line_of_every_student(folder, tmp_path, monkeypatch, scale):
    monkeypatch.chdir(ROOT)
    for name, changes in recipes(SCALES[scale]).items():
        python, *module, config, base = (training := Training(name, changes, folder, tmp_path)).command()[:5]
        assert (python, module, config, base) == (
            sys.executable,
            ["-m", "training.train"],
            "--config_file",
            str(ROOT / "demo" / "tcd.toml"),
        )
        read = options.read(training.command()[3:])
        assert {option: getattr(read, option) for option in changes} == changes
        assert (read.output_dir, read.output_name) == (str(folder), name)
        assert read.train_data_dir == str(tmp_path)
        assert (read.resume, read.save_state, read.cache_latents_to_disk) == ("auto", True, True)
        assert 1 <= read.save_every_n_steps <= training.steps
        assert 0 < warm_up(read, training.steps) <= 20
        assert read.network_dim == options.from_toml(ROOT / "demo" / "tcd.toml")["network_dim"]


@pytest.mark.slow
def test_a_wrong_option_is_the_trainers_error(folder, tmp_path):
    """By the real trainer, which refuses before it loads anything."""
    training = Training("a", {"max_train_steps": 1, "tcf": "3"}, folder, tmp_path)
    with pytest.raises(TrainingError, match=re.escape("training a ended with code 2")) as caught:
        distil([training])
    assert "--tcf: invalid choice: '3'" in str(caught.value)
