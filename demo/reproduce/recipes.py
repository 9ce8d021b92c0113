"""Every student of the reproduction: what its training differs in from demo/tcd.toml."""

from typing import Any

from .scale import Scale

Changes = dict[str, Any]

PAPER_W = {0.0: 1, 3.0: 4, 7.0: 8, 10.0: 11}  # our w -> the second paper's, whose guidance is u + w (c - u)
W, N, SOLVER = 3.0, 50, "ddim"  # of the second paper's students, where it is not what varies
TEACHERS = [
    *[(solver, N, W) for solver in ("ddim", "euler", "heun")],
    *[(SOLVER, intervals, W) for intervals in (25, 100, 200)],
    *[(SOLVER, N, w) for w in PAPER_W if w != W],
]


def direct_name(method: str, solver: str, intervals: int, w: float) -> str:
    """The student of the second paper with this teacher.

    >>> direct_name("cm", "ddim", 50, 3.0)
    'cm-ddim-n50-w3'
    """
    return f"{method}-{solver}-n{intervals}-w{w:g}"


def first_paper(scale: Scale) -> dict[str, Changes]:
    """TCD with its three trajectory functions and LCM: the same data, LoRA, steps, guidance and distance."""
    budget = {"max_train_steps": scale.steps, "train_batch_size": scale.batch}
    own: dict[str, Changes] = {
        "tcd": {},
        "lcm": {"method": "lcm", "intervals": 50, "ends": 1},  # N = 50 is k = 20
        "tcf2": {"tcf": "2", "ends": 1},
        "splus": {"tcf": "s+", "ends": 1},
    }
    return {name: {**budget, **changes} for name, changes in own.items()}


def second_paper(scale: Scale) -> dict[str, Changes]:
    """CM and Direct CM for every teacher: only the loss differs between the two."""
    budget: Changes = {"max_train_steps": scale.direct_steps, "train_batch_size": scale.direct_batch}
    # Single precision: without AMX, bfloat16 takes half as long again for the teacher's paths, most of all the work.
    budget |= {"ends": 1, "loss_type": "huber", "mixed_precision": "no"}
    return {
        direct_name(method, solver, intervals, w): {
            **budget,
            "method": method,
            "solver": solver,
            "intervals": intervals,
            "guidance_min": w,
            "guidance_max": w,
        }
        for method in ("cm", "direct_cm")
        for solver, intervals, w in TEACHERS
    }


def recipes(scale: Scale) -> dict[str, Changes]:
    """Student -> its changes."""
    return first_paper(scale) | second_paper(scale)
