"""Captions: how they are read, and how each time varies them."""

import pytest
from dataset_files import opts_of

from training.data import captions, sources
from training.draws import generator

TAGS = "one, two, three, four, five"


def subset(folder, **named):
    own = {name: named.pop(name) for name in ("class_tokens", "prefix", "suffix") if name in named}
    return sources.Subset(folder, 1, opts_of(folder, **named), **own)


def read(folder, content=None, **named):
    if content is not None:
        (folder / "a.txt").write_bytes(content)
    return captions.read(folder / "a.png", subset(folder, **named))


def varied(folder, count=200, epoch=0, **named):
    opts = opts_of(folder, **named)
    return [captions.vary(TAGS, opts, epoch, generator(0, i)) for i in range(count)]


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b" a cat \n", "a cat"),
        (b"\xef\xbb\xbfa cat", "a cat"),
        (b"\n\nfirst\r\nsecond", "first"),
        ("caf\u00e9".encode(), "caf\u00e9"),
    ],
    ids=["spaces", "byte order mark", "lines", "letters"],
)
def test_the_first_line_is_the_caption(tmp_path, content, caption):
    assert read(tmp_path, content) == caption


def test_captions_may_have_another_ending_a_prefix_and_a_suffix(tmp_path):
    (tmp_path / "a.caption").write_text("red", encoding="utf-8")
    assert read(tmp_path, b"blue", caption_extension=".caption", prefix="a", suffix="heart") == "a red heart"


def test_class_tokens_stand_in_for_a_missing_caption_only(tmp_path):
    assert read(tmp_path, class_tokens="cat", prefix="a") == "a cat"
    assert read(tmp_path, b"dog", class_tokens="cat") == "dog"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no caption: a\.txt is missing"),
        (b" \n", r"has an empty caption: a\.txt"),
        (b"caf\xe9", r"has a caption that cannot be read as UTF-8, a\.txt"),
    ],
)
def test_a_caption_that_cannot_be_used_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_nothing_varies_by_default(tmp_path):
    assert set(varied(tmp_path)) == {TAGS}


def test_tags_are_shuffled_but_for_the_kept_ones(tmp_path):
    found = varied(tmp_path, shuffle_caption=True, keep_tokens=2)
    assert len(set(found)) == 6
    assert all(text.startswith("one, two, ") and set(text.split(", ")) == set(TAGS.split(", ")) for text in found)


def test_tags_are_dropped_at_the_rate_but_for_the_kept_ones(tmp_path):
    found = [text.split(", ") for text in varied(tmp_path, 1000, caption_tag_dropout_rate=0.25, keep_tokens=1)]
    assert all(tags[0] == "one" for tags in found)
    assert all(sorted(tags, key=TAGS.index) == tags for tags in found)
    assert sum(len(tags) - 1 for tags in found) / 4000 == pytest.approx(0.75, abs=0.03)


def test_another_separator_divides_and_joins(tmp_path):
    opts = opts_of(tmp_path, shuffle_caption=True, caption_separator=";")
    assert sorted(captions.vary("a; b, c", opts, 0, generator(0)).split("; ")) == ["a", "b, c"]


def test_whole_captions_are_dropped_at_the_rate(tmp_path):
    found = varied(tmp_path, 1000, caption_dropout_rate=0.25)
    assert set(found) == {"", TAGS}
    assert found.count("") / 1000 == pytest.approx(0.25, abs=0.04)


def test_captions_are_dropped_in_every_nth_epoch(tmp_path):
    found = [varied(tmp_path, 1, epoch, caption_dropout_every_n_epochs=3)[0] for epoch in range(6)]
    assert found == [TAGS, TAGS, "", TAGS, TAGS, ""]


def test_the_same_place_draws_the_same(tmp_path):
    named = {"shuffle_caption": True, "caption_tag_dropout_rate": 0.5, "caption_dropout_rate": 0.1}
    assert varied(tmp_path, **named) == varied(tmp_path, **named)
