"""How much of everything: the whole reproduction, or a quick one that shows that it runs, and not what holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Budgets. Students that are compared always have the same number of steps and samples a step."""

    steps: int  # of the students of the first paper
    batch: int  # samples a step
    direct_steps: int  # of the students of the second paper
    direct_batch: int
    tuning_steps: int  # of the fine-tuned base and the style LoRA
    captions: int  # pictures for each seed
    seeds: tuple[int, ...]
    probes: int  # captions whose paths are followed, for errors in latents
    fine: int  # steps of a path that counts as exact


SCALES = {
    "full": Scale(
        steps=1500,
        batch=32,
        direct_steps=60,
        direct_batch=16,
        tuning_steps=400,
        captions=192,
        seeds=(0, 1, 2),
        probes=32,
        fine=200,
    ),
    "quick": Scale(
        steps=30,
        batch=32,
        direct_steps=4,
        direct_batch=8,
        tuning_steps=20,
        captions=8,
        seeds=(0, 1),
        probes=4,
        fine=50,
    ),
}
