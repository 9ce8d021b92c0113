"""Of two processes that train together one is killed or hangs, without a torchrun that would end the other: on another
machine, say. The other one ends soon, with a word, and from what was saved both go on to the same bits.
"""

import os
import signal
import time

import host_process
import pytest
import torch
from short_runs import content, flags_of, pictures

pytestmark = [pytest.mark.host, pytest.mark.slow]

OPTIONS = {"save_every_n_steps": 1, "save_state": True, "train_batch_size": 2}
SECONDS = 30  # until the other has ended: five to find that one hangs, the rest for a busy machine


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    host_process.pack()
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture
def forked(monkeypatch):
    host_process.pack()
    import forked_trainer
    from faults import hurried_trainer

    monkeypatch.setattr(forked_trainer, "run", hurried_trainer.run)
    return forked_trainer


def wait_for(path, process, log):
    while not path.exists():
        assert process.exitcode is None, log.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_other_and_both_go_on_later(data, tmp_path, forked, how, lost):
    output, log = tmp_path / "output", tmp_path / "log"
    both = forked.start_together([flags_of(data, output, **OPTIONS, max_train_steps=10_000)] * 2, log)
    try:
        wait_for(output / "new-step00000002.safetensors", both[0], log)
        os.kill(both[lost].pid, how)
        began = time.monotonic()
        both[1 - lost].join(SECONDS)
        assert both[1 - lost].exitcode == 1, f"after {time.monotonic() - began:.0f} s"
    finally:
        both[lost].kill()
        both[lost].join()
    told = log.read_text()
    assert "error: another process is gone or hangs: start all of them again, with --resume auto" in told
    assert "Traceback" not in told
    step = torch.load(output / "new-state.pt", weights_only=True)["step"]
    assert step >= 1
    go_on = flags_of(data, output, **OPTIONS, max_train_steps=step + 2, resume="auto")
    assert forked.finish_together([go_on] * 2, log) == [0, 0], log.read_text()
    untouched = flags_of(data, tmp_path / "untouched", max_train_steps=step + 2, train_batch_size=2)
    assert forked.finish_together([untouched] * 2, log) == [0, 0], log.read_text()
    assert content(output / "new.safetensors") == content(tmp_path / "untouched" / "new.safetensors")
