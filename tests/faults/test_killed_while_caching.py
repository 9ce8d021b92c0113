"""Caching that is killed at random moments: what is in the cache is whole, is used again, and the run that comes to its
end comes to the same bits.
"""

import random
import time
from itertools import count

import host_process
import pytest
from dataset_files import add
from short_runs import content, flags_of

pytestmark = [pytest.mark.host, pytest.mark.slow]

KILLS, MOST = 20, 8  # and how many files more are waited for, at most, before a kill
PICTURES, PROMPTS = 30, 60


@pytest.fixture(scope="module")
def forked():
    host_process.pack()
    import forked_trainer

    return forked_trainer


def of_pictures(folder):
    """Latents and text-encoder outputs, of as many captions."""
    for i in range(PICTURES):
        add(folder / "1_x", f"{i}.png", f"caption {i}", color=(8 * i, 0, 0))
    return {"train_data_dir": str(folder), "flip_aug": True, "vae_batch_size": 1}


def of_prompts(folder):
    """The teacher's latents, and text-encoder outputs."""
    folder.mkdir()
    (folder / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(PROMPTS)), encoding="utf-8")
    return {"train_data_dir": "", "prompts": str(folder / "prompts.txt"), "teacher_steps": 2, "train_batch_size": 1}


def cached(output):
    """The files of a run's caches, by name, as bytes; those that are being written are none."""
    return {path.name: path.read_bytes() for path in (output / "cache").rglob("*.safetensors")}


def killed_after(process, output, files, seconds):
    """SIGKILL when the cache has so many files and a moment has gone by; whether the process was still there."""
    while process.exitcode is None and len(list((output / "cache").rglob("*.safetensors"))) < files:
        time.sleep(0.0005)
    process.join(seconds)
    alive = process.exitcode is None
    process.kill()
    process.join()
    return alive


@pytest.mark.parametrize("source", [of_pictures, of_prompts])
def test_a_cache_is_whole_whenever_its_writing_is_killed(tmp_path, forked, source):
    options = {**source(tmp_path / "data"), "max_train_steps": 2, "cache_text_encoder_outputs_to_disk": True}
    options["cache_latents_to_disk"] = source is of_pictures
    whole, log = tmp_path / "whole", tmp_path / "log"
    assert forked.finish(flags_of(tmp_path, whole, **options), log) == 0, log.read_text()
    wanted, moments, kills = cached(whole), random.Random(0), 0
    for number in count():
        output, times = tmp_path / str(number), dict[str, int]()
        flags = flags_of(tmp_path, output, **options)
        while kills < KILLS and len(times) + MOST < len(wanted):
            process = forked.start(flags, log)
            assert killed_after(process, output, len(times) + moments.randint(0, MOST), moments.uniform(0, 0.005))
            kills += 1
            found = cached(output)
            assert all(wanted[name] == data for name, data in found.items())
            now = {path.name: path.stat().st_mtime_ns for path in (output / "cache").rglob("*.safetensors")}
            assert times.items() <= now.items()  # nothing is made twice
            times = now
        assert forked.finish(flags, log) == 0, log.read_text()
        assert cached(output) == wanted
        assert content(output / "new.safetensors") == content(whole / "new.safetensors")
        if kills == KILLS:
            break
