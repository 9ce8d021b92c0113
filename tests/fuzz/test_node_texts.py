"""Lists of numbers that are typed into a node: gamma of every step, times, steps and methods to compare."""

import re
from typing import Any

import pytest
import torch
from fuzz.rule import refused_or_right
from host_models import sampling_of
from host_process import adapt, module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.host, pytest.mark.slow]

examples = settings(
    max_examples=700,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Numbers as people write them, and as they should not; and anything else.
PIECES = st.one_of(
    st.integers(-2, 1001).map(str),
    st.floats(-0.5, 1.5).map(lambda value: f"{value:.3g}"),
    st.sampled_from(
        ["0", "1", "0.3", "999", "759", "nan", "inf", "1e-400", "0_1", "\u0665", "0x1", ".5", "5.", "--1", "%"]
    ),
    st.sampled_from(["tcd", "lcm", "euler", "TCD", "magic", "9" * 5000, "1" + "0" * 400]),
    st.text(max_size=5),
)
PARTS = st.floats(0, 1).map(lambda value: f"{value:.3g}")
TIMES = st.lists(st.integers(0, 999), min_size=1, max_size=8, unique=True).map(
    lambda found: sorted(found, reverse=True)
)
LISTS = st.one_of(
    st.lists(PIECES, max_size=6), st.lists(PARTS, max_size=6), TIMES.map(lambda found: [str(time) for time in found])
)
TEXTS = st.builds(str.join, st.sampled_from([", ", ",", " ", "\n", ";", ",,"]), LISTS)


def words(text: str) -> list[str]:
    return re.split(r"[\s,;]+", text.strip())


def check_gammas(found: tuple[float, ...], text: str) -> None:
    assert list(found) == ([float(word) for word in words(text)] if text.strip() else [])
    assert all(0 <= value <= 1 for value in found)


@examples
@given(TEXTS)
def test_gammas_are_what_is_typed_or_refused(one_thread, text):
    refused_or_right(
        "gammas",
        lambda: module("gammas").values_of(text),
        lambda found: check_gammas(found, text),
        ["values must be numbers in [0, 1]"],
        [f"got {word!r:.100}" for word in words(text)],
    )


def check_times(levels: torch.Tensor, text: str) -> None:
    assert len(levels) == len(words(text)) + 1
    assert bool((levels[1:] < levels[:-1]).all())
    assert float(levels[-1]) == 0


@pytest.mark.parametrize("kind", [("ModelSamplingDiscrete", "EPS"), ("ModelSamplingDiscreteFlow", "CONST")])
@examples
@given(text=TEXTS)
def test_times_are_what_is_typed_or_refused(one_thread, kind, text):
    schedule = schedule_of(*kind)
    refused_or_right(
        "times",
        lambda: adapt().sigmas_at(schedule, text),
        lambda levels: check_times(levels, text),
        ["times must "],
        [repr(word)[:100] for word in words(text)] + [repr(text.strip())],
    )


SCHEDULES: dict[tuple[Any, ...], Any] = {}


def schedule_of(*kind: Any) -> Any:
    if kind not in SCHEDULES:
        SCHEDULES[kind] = adapt().schedule_of(sampling_of(*kind))
    return SCHEDULES[kind]


@examples
@given(TEXTS)
def test_columns_to_compare_are_what_is_typed_or_refused(one_thread, text):
    refused_or_right(
        "compare",
        lambda: module("methods").columns_of(text),
        lambda found: all(1 <= steps <= 1000 and str(steps) in text for steps in found),
        ["steps must be whole numbers from 1 to 1000"],
    )


@examples
@given(TEXTS)
def test_gammas_to_compare_are_what_is_typed_or_refused(one_thread, text):
    refused_or_right(
        "compare",
        lambda: module("methods").gammas_of(text),
        lambda found: check_gammas(found, ", ".join(map(str, found))),
        ["gammas"],
    )
