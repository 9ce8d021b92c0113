"""Disks that are full at any moment, and folders that are only read: what was saved before stays, the message says what
to do, and then the run goes on.
"""

import re
import shutil
import sys
from types import SimpleNamespace

import host_process
import pytest
import torch
from faults.disks import enlarge, full_disk, read_only, small_disk
from host_process import ROOT, empty, run, sample, sigmas, tcd_sampler
from safetensors.torch import load_file
from short_runs import content, flags_of, pictures

from training import saving, train
from training.data import cache
from training.evaluate import EvaluateOptions, check
from training.evaluate import __main__ as evaluator
from training.options import Options
from training.watch import Log

pytestmark = pytest.mark.host

PARTS = 12  # sizes of disks that are tried
ADVICE = "where a disk is full or only read, make room or choose another output_dir; run again"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    host_process.pack()
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture
def trainer(data, tmp_path, monkeypatch):
    """The trainer's command line in this process, with all that it can write, into a folder of a name."""
    (tmp_path / "prompts.txt").write_text("a red heart --w 64 --h 64\n", encoding="utf-8")
    options = {"save_every_n_steps": 1, "save_state": True, "log_with": "tensorboard", "sample_every_n_steps": 1}
    options |= {"cache_latents_to_disk": True, "cache_text_encoder_outputs_to_disk": True, "resume": "auto"}
    options |= {"sample_prompts": str(tmp_path / "prompts.txt"), "sample_steps": "1", "ode_error_steps": 1}

    def main(name="output", source=data, **other):
        flags = flags_of(source, tmp_path / name, **options | other)
        monkeypatch.setattr(sys, "argv", ["training.train", *flags])
        train.main()
        return content(tmp_path / name / "new.safetensors")

    return main


def kilobytes(folder):
    """Of the files, each in whole pages."""
    return sum(4 * -(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())


def told_by(main):
    """What a command says on its exit; nothing where it comes to its end."""
    try:
        main()
    except SystemExit as failure:
        return str(failure)
    return ""


@pytest.mark.slow
def test_a_run_on_a_disk_of_any_size_tells_that_it_is_full_and_goes_on_with_more_room(trainer, tmp_path, monkeypatch):
    wanted = trainer("whole")
    size, output = kilobytes(tmp_path / "whole"), tmp_path / "output"
    ends = []

    def wait(seconds):
        ends.append("waited")
        enlarge(output, 2 * size)

    monkeypatch.setattr(saving.time, "sleep", wait)
    for part in range(PARTS):
        with small_disk(output, 8 + size * part // PARTS):
            failure = told_by(trainer)
            if failure:
                assert "could not be written" in failure
                assert ADVICE in failure
                ends.append("told")
                enlarge(output, 2 * size)
                trainer()
            assert content(output / "new.safetensors") == wanted
            assert not list(output.rglob("*.tmp"))
    assert {"told", "waited"} <= set(ends)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # in TensorBoard's own thread
def test_tensorboard_without_room_costs_rows_and_not_the_end_of_the_run(tmp_path, caplog):
    opts = Options(output_dir=str(tmp_path / "output"), output_name="new", log_with="tensorboard", log_every_n_steps=1)
    with small_disk(tmp_path / "output", 16):
        log = Log(opts, 0, 500)
        (tmp_path / "output" / "fill").write_bytes(bytes(4096))
        for step in range(500):
            log.add(step, 0.1, 0.1, 0.1, 1)
        log.close()
    assert (
        caplog.messages[-1] == "TensorBoard has not the last rows, the run goes on: [Errno 28] No space left on device"
    )


@pytest.mark.parametrize("folder", ["latents", "texts"])
def test_a_cache_without_room_is_named_and_what_is_in_it_is_used_again(trainer, tmp_path, folder):
    wanted, where = trainer("whole"), tmp_path / "output" / "cache" / folder
    with small_disk(where, 8):
        with pytest.raises(SystemExit, match=rf"error: the cache {where}/\w+\.safetensors could not be .*\n{ADVICE}"):
            trainer()
        there = {path: path.stat().st_mtime_ns for path in where.iterdir()}
        assert there
        enlarge(where, 1000)
        assert trainer() == wanted
        assert {path: path.stat().st_mtime_ns for path in there} == there


def test_an_output_folder_that_is_only_read_is_refused_at_once(trainer, tmp_path):
    with (
        read_only(tmp_path / "output"),
        pytest.raises(SystemExit, match=r"output_dir .* cannot be written to: .*Read-only"),
    ):
        trainer()


def test_data_and_caches_may_be_on_a_disk_that_is_only_read(trainer, data, tmp_path):
    wanted = trainer()
    shutil.copytree(tmp_path / "output" / "cache", tmp_path / "again" / "cache")
    (tmp_path / "again" / "cache" / "latents" / "old.tmp").touch()
    with read_only(tmp_path / "again" / "cache"), read_only(data):
        assert trainer("again") == wanted


def test_a_cache_that_is_only_read_and_not_complete_is_named(trainer, tmp_path):
    (tmp_path / "output" / "cache" / "texts").mkdir(parents=True)
    with (
        read_only(tmp_path / "output" / "cache" / "texts"),
        pytest.raises(SystemExit, match=rf"the cache .*Read-only.*\n{ADVICE}"),
    ):
        trainer()


def test_leftovers_of_a_killed_process_do_not_matter_where_they_cannot_be_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "DAY", -1)
    (tmp_path / "old.tmp").touch()
    with read_only(tmp_path):
        cache.Folder(tmp_path)
    cache.Folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def trajectory(tmp_path, monkeypatch):
    """Shows a trajectory of two steps; returns the path of its data file."""
    host_process.pack()
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    tiny = run("TCD_TinyLoader")
    (cond,) = run("CLIPTextEncode", clip=tiny[1], text="red heart")
    model, recorder = run("TCD_RecordTrajectory", model=tiny[0], reference=True)
    latent = {"samples": sample(model, cond, tcd_sampler(), sigmas(model, 2), empty())}
    inputs = {"trajectory": recorder, "latent": latent, "item": 0, "save": True, "vae": None, "compare": None}
    return lambda: run("TCD_ViewTrajectory", **inputs)[3]


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.9])
def test_a_view_without_room_leaves_no_file_and_the_earlier_ones_alone(trajectory, tmp_path, share):
    first = trajectory()
    before = {path: path.read_bytes() for path in (tmp_path / "output").rglob("*") if path.is_file()}
    told = rf"trajectory's files could not be written to {re.escape(str(tmp_path))}.*; free some space there"
    room = int(share * max(map(len, before.values())))
    with full_disk(room), pytest.raises(OSError, match=told):
        trajectory()
    assert {path: path.read_bytes() for path in (tmp_path / "output").rglob("*") if path.is_file()} == before
    second = trajectory()
    assert second != first
    one, two = load_file(first), load_file(second)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_view_where_nothing_can_be_written_says_so(trajectory, tmp_path):
    trajectory()
    with (
        read_only(tmp_path / "output"),
        pytest.raises(OSError, match=r"could not be written to .*Read-only.*free some space"),
    ):
        trajectory()


@pytest.fixture
def evaluation(tmp_path):
    host_process.pack()
    (tmp_path / "prompts.txt").write_text("red heart\nblue whale\n", encoding="utf-8")
    return {
        "pretrained_model_name_or_path": str(ROOT / "demo" / "tiny.safetensors"),
        "checkpoint_loader": "demo.tiny:load",
        "network_weights": (f"tiny={ROOT / 'demo' / 'loras' / 'tcd_tiny_lora.safetensors'}",),
        "prompts": str(tmp_path / "prompts.txt"),
        "methods": ("tcd:steps=1",),
        "resolution": "128",
        "batch_size": 1,
        "teacher_steps": 2,
    }


@pytest.mark.slow
def test_an_evaluation_on_a_full_disk_tells_so_and_uses_its_pictures_again(evaluation, tmp_path, monkeypatch):
    def main(name="output"):
        opts = check(EvaluateOptions(**evaluation, output_dir=str(tmp_path / name)))
        monkeypatch.setattr(evaluator, "EVALUATOR", SimpleNamespace(read=lambda: opts))
        evaluator.main()
        return {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.png")}

    wanted, output = main("whole"), tmp_path / "output"
    size, told = kilobytes(tmp_path / "whole"), 0
    for part in range(4):
        with small_disk(output, 8 + size * part // 4):
            with pytest.raises(
                SystemExit, match=rf"(?s)could not be written.*{ADVICE}, and the pictures that are there"
            ):
                main()
            there = {path: path.stat().st_mtime_ns for path in output.glob("*/*.png")}
            told += len(there)
            enlarge(output, 2 * size)
            assert main() == wanted
            assert {path: path.stat().st_mtime_ns for path in there} == there
    assert told > 0
