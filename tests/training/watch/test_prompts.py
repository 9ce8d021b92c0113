"""Files of sample prompts: kohya's syntax, what it leaves to the options, and what is wrong by file and line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import options
from training.watch import prompts


@pytest.fixture
def reading(tmp_path):
    """Reads the prompts of a text."""

    def read(text, encoding="utf-8", **named):
        path = tmp_path / "prompts.txt"
        path.write_bytes(text.encode(encoding))
        return prompts.read(options.Options(sample_prompts=str(path), **named))

    return read


def test_every_flag_is_read(reading):
    (found,) = reading("a red heart, 3D --n blurry, gray --w 640 --h 384 --d 7 --s 6 --l 2.5\n")
    assert found.place.endswith("prompts.txt, line 1")
    assert (found.text, found.negative) == ("a red heart, 3D", "blurry, gray")
    assert (found.width, found.height, found.seed, found.steps, found.cfg) == (640, 384, 7, (6,), 2.5)


def test_what_a_line_does_not_say_is_as_the_options_have_it(reading):
    first, second = reading("one\ntwo", resolution="640,512", sample_steps="1,3", seed=5)
    assert (first.width, first.height, first.steps, first.cfg, first.negative) == (640, 512, (1, 3), 1.0, None)
    assert (first.seed, second.seed) == (5, 6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_comments_and_empty_lines_are_left_out(reading, encoding):
    found = reading("# first\r\n\r\n  one \r\n   # indented\r\n--d 3\r\n", encoding)
    assert [(prompt.text, prompt.place[-6:]) for prompt in found] == [("one", "line 3"), ("", "line 5")]
    assert [prompt.seed for prompt in found] == [0, 3]


def test_flags_are_the_same_in_capitals(reading):
    assert reading("one --W 64 --D 9")[0].seed == 9


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--x 3", r"one of --n, --w, --h, --d, --s, --l; got '--x'"),
        ("--width 64", r"got '--width'"),
        ("--w 64.5", r"--w must be a whole number from 1 to 16384, got '64.5'"),
        ("--h 0", r"--h must be a whole number from 1 .* got '0'"),
        ("--d -1", r"--d must be a whole number from 0 .* got '-1'"),
        (f"--d {2**64}", r"--d must be"),
        ("--s many", r"--s must be a whole number .* got 'many'"),
        ("--s", r"--s must be a whole number .* got ''"),
        ("--l 0.5", r"--l must be a number from 1 .* got '0.5'"),
        ("--l nan", r"--l must be a number"),
        ("--d 1 --w 64 --d 2", r"a flag may be given once, got '--d 2' again"),
    ],
)
def test_a_mistake_is_named_with_its_line(reading, line, message):
    with pytest.raises(ValueError, match=r"prompts\.txt, line 2: .*" + message):
        reading(f"fine\none {line}\n")


def test_a_file_without_prompts_is_refused(reading):
    with pytest.raises(ValueError, match=r"sample_prompts .*prompts\.txt holds no prompt"):
        reading("# nothing\n\n")


def test_a_file_that_is_no_text_is_refused(reading):
    with pytest.raises(ValueError, match=r"sample_prompts .*prompts\.txt is not readable text"):
        reading("\N{LATIN SMALL LETTER U WITH DIAERESIS}", encoding="latin-1")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "n": st.text("abc, -", min_size=1).map(str.strip).filter(lambda text: text and " --" not in f" {text}"),
            "w": st.integers(1, 16384),
            "h": st.integers(1, 16384),
            "d": st.integers(0, 2**64 - 1),
            "s": st.integers(1, 1000),
            "l": st.floats(1, 1000),
        },
    )
)
def test_what_was_written_is_read(flags):
    found = prompts.flags_of([f"{name} {value}" for name, value in flags.items()])
    wanted = {prompts.FLAGS[name].field: (value,) if name == "s" else value for name, value in flags.items()}
    assert found == wanted
