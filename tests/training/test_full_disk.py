"""A disk without room, by the operating system's own limit on the size of files, and folders that take no file."""

import resource

import host_process
import pytest
import torch
from faults.disks import full_disk
from short_runs import content, options_of, pictures, rows

from training import host, save, saving, train

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    host_process.pack()
    return pictures(tmp_path_factory.mktemp("data"))


WAYS = [{}, {"full_finetune": True, "network_dim": 64, "network_args": (), "checkpoint_loader": "demo.tiny:load"}]


@pytest.mark.parametrize("way", WAYS, ids=["lora", "checkpoint"])
def test_a_save_on_the_way_that_fails_is_told_and_the_run_goes_on(data, tmp_path, monkeypatch, caplog, way):
    save_now = train.save_on_the_way

    def full_after_two_steps(run, step):
        if step != 2:
            save_now(run, step)
            return
        with full_disk():
            save_now(run, step)

    monkeypatch.setattr(train, "save_on_the_way", full_after_two_steps)
    options = {"save_every_n_steps": 1, "save_state": True, **way}
    made = train.train(options_of(data, tmp_path, **options))
    (told,) = caplog.messages
    assert told.startswith("step 2 was not saved, the run goes on: ")
    saved = {path.name for path in tmp_path.iterdir()}
    assert saved == {
        *("new.safetensors", "new-step00000001.safetensors", "new-step00000003.safetensors"),
        *("new-state.pt", "new.toml", "new.jsonl"),
    }
    assert len(content(made)[0]) > 0


def test_what_was_saved_before_stays_whole(data, tmp_path):
    first = train.train(options_of(data, tmp_path, max_train_steps=1, save_state=True))
    kept = content(first), (tmp_path / "new-state.pt").read_bytes()
    run = train.prepare(options_of(data, tmp_path))
    with full_disk():
        for write in (lambda: run.saver.save(0), lambda: run.state.write(run.state.collect(0))):
            with pytest.raises(OSError, match=r"new"):
                write()
    assert (content(first), (tmp_path / "new-state.pt").read_bytes()) == kept
    assert not list(tmp_path.glob("*.tmp*"))


@pytest.mark.parametrize("way", WAYS, ids=["lora", "checkpoint"])
def test_the_end_of_a_run_waits_for_room(data, tmp_path, monkeypatch, capsys, way):
    whole = train.train(options_of(data, tmp_path / "whole", **way))
    waited, save_now = [], train.save_at_the_end

    def until_full(run):
        with full_disk():
            disk = resource.getrlimit(resource.RLIMIT_FSIZE)

            def sleep(seconds):
                waited.append(seconds)
                if len(waited) == 3:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (disk[1], disk[1]))

            monkeypatch.setattr(saving.time, "sleep", sleep)
            return save_now(run)

    monkeypatch.setattr(train, "save_at_the_end", until_full)
    monkeypatch.setattr(saving, "RETRY_SECONDS", 7)
    late = train.train(options_of(data, tmp_path / "late", **way, save_state_on_train_end=True))
    assert waited == [7, 7, 7]
    assert content(late) == content(whole)
    assert torch.load(late.with_name("new-state.pt"), weights_only=True)["step"] == 3
    assert capsys.readouterr().err.count("free some space: trying again every 7 s; Ctrl-C gives up") == 3


def test_a_stopped_run_that_cannot_save_says_so(data, tmp_path):
    run = train.prepare(options_of(data, tmp_path, save_state=True))
    with full_disk(), pytest.raises(train.StoppedError, match="stopped after step 2 of 3, which could not be saved"):
        train.stop(run, 2, 15)


def test_a_log_without_room_costs_rows_and_not_the_run(data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(train.Log, "write", lambda log, row: (_ for _ in ()).throw(OSError("no space left")))
    assert train.train(options_of(data, tmp_path)).is_file()
    assert caplog.messages == [f"step {i} was not logged, the run goes on: no space left" for i in (1, 2, 3)]
    assert rows(tmp_path) == []


def test_a_folder_that_takes_no_file_is_refused_before_the_model_is_loaded(data, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(host, "load_teacher", pytest.fail)
    with pytest.raises(ValueError, match=r"output_dir .*file/output cannot be written to: "):
        train.prepare(options_of(data, tmp_path / "file" / "output"))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "x").write_text("before")
    (tmp_path / "x.tmp").write_text("of a killed process")

    def half(scratch):
        scratch.write_text("half")
        raise RuntimeError("no more")

    with pytest.raises(OSError, match=r"x could not be written: no more"):
        save.replace(tmp_path / "x", half)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "before"}
    save.replace(tmp_path / "x", lambda scratch: scratch.write_text("after"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "after"}
