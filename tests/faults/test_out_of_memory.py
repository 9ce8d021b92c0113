"""Training that runs out of memory at any of its network's evaluations: one line says what helps, what was saved stays,
and the run goes on from there to the same bits.
"""

import sys

import host_process
import pytest
import torch
from short_runs import content, flags_of, pictures

from training import train

pytestmark = [pytest.mark.host, pytest.mark.slow]


class Full:
    """Counts the evaluations of all networks; one of them finds no memory."""

    def __init__(self) -> None:
        self.count, self.at = 0, 0

    def __call__(self, *given: object) -> None:
        self.count += 1
        if self.count == self.at:
            raise torch.OutOfMemoryError("the test's memory is full")

    def arm(self, at: int) -> None:
        self.count, self.at = 0, at


@pytest.fixture
def full(monkeypatch):
    host_process.pack()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    made, forward = Full(), UNetModel.forward

    def counted(self, *args, **named):
        made()
        return forward(self, *args, **named)

    monkeypatch.setattr(UNetModel, "forward", counted)
    return made


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    data = pictures(tmp_path / "data")

    def main(name, **other):
        options = {"save_every_n_steps": 1, "save_state": True, "resume": "auto", **other}
        monkeypatch.setattr(sys, "argv", ["training.train", *flags_of(data, tmp_path / name, **options)])
        train.main()
        return content(tmp_path / name / "new.safetensors")

    return main


ADVICE = "try gradient_checkpointing, mixed_precision bf16, a smaller train_batch_size or resolution; run again with"


def test_an_end_at_any_evaluation_loses_nothing_that_was_saved(full, trainer, tmp_path):
    other = {"max_train_steps": 2, "ema_decay": 0.5, "gradient_accumulation_steps": 2}
    wanted = trainer("whole", **other)
    evaluations, states = full.count, []
    for at in range(1, evaluations + 1):
        full.arm(at)
        with pytest.raises(
            SystemExit, match=rf"error: out of memory: the test's memory is full\n{ADVICE} --resume auto"
        ):
            trainer(str(at), **other)
        saved = sorted(path.name for path in (tmp_path / str(at)).glob("new-step*"))
        states.append(len(saved))
        if saved:
            assert torch.load(tmp_path / str(at) / "new-state.pt", weights_only=True)["step"] == len(saved)
        full.arm(0)
        assert trainer(str(at), **other) == wanted
    assert states == sorted(states)
    assert set(states) == {0, 1}


def test_sample_pictures_without_memory_cost_pictures_and_not_the_run(full, trainer, tmp_path, monkeypatch, caplog):
    (tmp_path / "prompts.txt").write_text("a red heart --w 64 --h 64\n", encoding="utf-8")
    watch = {"sample_prompts": str(tmp_path / "prompts.txt"), "sample_steps": "1", "ode_error_steps": 1}
    wanted, look = trainer("whole"), train.look

    def without_memory(run, log, step):
        full.arm(step)  # at another evaluation each time, as far as there are so many
        look(run, log, step)
        full.arm(0)

    monkeypatch.setattr(train, "look", without_memory)
    assert trainer("watched", **watch, sample_every_n_steps=1) == wanted
    assert caplog.messages[0] == "nothing to see after step 1, the run goes on: the test's memory is full"
