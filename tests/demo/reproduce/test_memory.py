"""Numbers that are computed once."""

import os

import pytest

from demo.reproduce.memory import content, remembered


@pytest.fixture
def made():
    return []


@pytest.fixture
def make(made):
    """Counts how often it is called."""

    def numbers():
        made.append(1)
        return {"error": [0.1, float(len(made))]}

    return numbers


def test_what_follows_from_the_same_is_made_once(tmp_path, make, made):
    first = remembered(tmp_path / "new", "row", (["a"], 1.5), make)
    assert first == {"error": [0.1, 1.0]}
    assert remembered(tmp_path / "new", "row", (["a"], 1.5), make) == first
    assert len(made) == 1


@pytest.mark.parametrize(("name", "follows_from"), [("row", ("b", 1)), ("row", ("a", 2)), ("other", ("a", 1))])
def test_what_follows_from_something_else_is_made_anew_and_both_are_kept(tmp_path, make, made, name, follows_from):
    first = remembered(tmp_path, "row", ("a", 1), make)
    assert remembered(tmp_path, name, follows_from, make) != first
    assert remembered(tmp_path, "row", ("a", 1), make) == first
    assert len(made) == 2


def test_it_is_given_as_json_has_it_also_when_it_was_just_made(tmp_path):
    for _ in range(2):
        assert remembered(tmp_path, "row", 0, lambda: ({4: (1, 2)})) == {"4": [1, 2]}


def failing():
    raise RuntimeError("no network")


@pytest.mark.parametrize(("make", "error"), [(failing, RuntimeError), (lambda: {"bad": object()}, TypeError)])
def test_what_fails_leaves_nothing_behind_and_can_be_tried_again(tmp_path, make, error):
    with pytest.raises(error):
        remembered(tmp_path, "row", 0, make)
    assert list(tmp_path.iterdir()) == []
    assert remembered(tmp_path, "row", 0, lambda: 5) == 5


def test_content_is_that_of_the_file_and_follows_it(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_text("weights", encoding="utf-8")
    before = content(one)
    assert content(two) == before
    one.write_text("others", encoding="utf-8")
    os.utime(one, ns=(1, 1))  # an older file in its place counts too
    assert content(one) != before == content(two)
