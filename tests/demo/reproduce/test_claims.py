"""Verdicts, computed from numbers for each seed."""

import math

import pytest

from demo.reproduce.claims import AGREES, DIFFERS, OPEN, all_of, tally, verdict


@pytest.mark.parametrize(
    ("lower", "higher", "wanted"),
    [
        ([1, 2, 3], [2, 3, 4], AGREES),
        ([2, 3, 4], [1, 2, 3], DIFFERS),
        ([1, 3], [2, 2], OPEN),
        ([1, 5], [2, 6], AGREES),  # pairs are compared, and not the means of seeds that are far apart
        ([1.0], [2.0], AGREES),
    ],
)
def test_seeds_are_compared_in_pairs_and_must_be_of_one_mind(lower, higher, wanted):
    assert verdict(lower, higher) == wanted


@pytest.mark.parametrize(("lower", "higher"), [([1, 2], [1, 2]), ([1, 2], [1, 3]), ([2, 2], [1, 2])])
def test_a_tie_of_any_seed_leaves_it_open(lower, higher):
    assert verdict(lower, higher) == OPEN


def test_what_is_no_number_leaves_it_open():
    assert verdict([1, math.nan], [2, 3]) == OPEN


def test_numbers_of_different_seeds_are_not_compared():
    with pytest.raises(ValueError, match="shorter"):
        verdict([1, 2, 3], [2, 3])


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        ([AGREES, AGREES], AGREES),
        ([AGREES, OPEN], OPEN),
        ([AGREES, OPEN, DIFFERS], DIFFERS),
        ([DIFFERS, DIFFERS], DIFFERS),
        ([AGREES], AGREES),
    ],
)
def test_a_claim_of_several_parts_is_as_its_worst_part(verdicts, wanted):
    assert all_of(verdicts) == wanted
    assert all_of(verdicts[::-1]) == wanted


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        ([AGREES, AGREES], "2 of 2 comparisons agree"),
        ([AGREES, OPEN, OPEN], "1 of 3 comparisons agree"),
        ([AGREES, OPEN, DIFFERS], "1 of 3 comparisons agree, 1 does not"),
        ([DIFFERS, DIFFERS], "0 of 2 comparisons agree, 2 do not"),
    ],
)
def test_comparisons_are_counted_in_words(verdicts, wanted):
    assert tally(verdicts) == wanted
