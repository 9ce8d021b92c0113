"""What people write in text files: captions, prompts for data and for sample pictures."""

from random import Random

import pytest
from dataset_files import opts_of
from fuzz.mutations import damaged, seeds
from fuzz.rule import refused_or_right

from training.data import captions, prompts, sources
from training.draws import generator
from training.watch import prompts as watched

pytestmark = pytest.mark.slow

WORDS = (
    *(
        "a cat",
        "red, blue",
        "",
        " ",
        "\t",
        "# not this",
        "caf\u00e9",
        "\u732b",
        "\U0001f600",
        "\ufeff",
        "\u2028",
        "\x85",
    ),
    *("a" * 10_000, ", " * 500, "(((cat:1.5)))", "embedding:x", "{a|b}", "\0", "\x1b[31m", "\ud800", "%s {0}", "\\"),
    *(" --w 512", " --h 0", " --n blurry", " --d -1", " --s 4", " --l 7.5", " --w 512 --w 512", " --x 1", " --l nan"),
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32", "utf-7")


def text_file(chance: Random) -> bytes:
    """Some lines in some encoding, sometimes damaged."""
    lines = [
        "".join(chance.choices(WORDS, k=chance.choice((1, 1, 2, 3)))) for _ in range(chance.choice((0, 1, 1, 2, 5)))
    ]
    text = chance.choice(("\n", "\r\n", "\r", "\x0b")).join(lines)
    encoding = chance.choice(ENCODINGS)
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return damaged(content, chance) if chance.random() < 0.3 else content


def text_of(content: bytes) -> str:
    """As UTF-8, which is all that is read."""
    text = content.decode("utf-8-sig")
    assert "\0" not in text
    return text


def first_line(content: bytes) -> str:
    return next(line.strip() for line in text_of(content).splitlines() if line.strip())


def check_varied(caption: str, chance: Random) -> None:
    """However a caption is varied, no tag is made up."""
    separator = chance.choice((",", ";", "a", ", "))
    opts = opts_of(sources.Path(), caption_separator=separator, shuffle_caption=True, caption_tag_dropout_rate=0.5)
    varied = captions.vary(caption, opts, 0, generator(0, caption))
    tags = {tag.strip() for tag in caption.split(separator)}
    assert {tag.strip() for tag in varied.split(separator)} <= tags | {""}


def test_a_caption_is_what_the_file_says_or_refused(tmp_path):
    subset, path = sources.Subset(tmp_path, 1, opts_of(tmp_path)), tmp_path / "a.txt"

    def check(caption: str, content: bytes, chance: Random) -> None:
        assert caption == first_line(content)
        check_varied(caption, chance)

    for chance in seeds("caption", 3000):
        path.write_bytes(content := text_file(chance))
        refused_or_right(
            "caption",
            lambda: captions.read(tmp_path / "a.png", subset),
            lambda caption, content=content, chance=chance: check(caption, content, chance),
            ["a.txt", "caption"],
        )


def check_prompts(found: list[str], content: bytes) -> None:
    lines = [line.strip() for line in text_of(content).splitlines()]
    assert found == [line for line in lines if line and line[0] != "#"]
    assert found


def test_prompts_are_what_the_file_says_or_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    for chance in seeds("prompts", 2000):
        path.write_bytes(content := text_file(chance))
        refused_or_right(
            "prompts file",
            lambda: prompts.read(path),
            lambda found, content=content: check_prompts(found, content),
            [str(path)],
        )


def check_watched(found: list[watched.Prompt], content: bytes) -> None:
    text = text_of(content)
    for prompt in found:
        assert prompt.text in text
        assert 1 <= prompt.width <= 16384
        assert 1 <= prompt.height <= 16384
        assert 0 <= prompt.seed < 2**64
        assert all(1 <= steps <= 1000 for steps in prompt.steps)
        assert 1 <= prompt.cfg <= 1000


def test_sample_prompts_are_what_the_file_says_or_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    opts = opts_of(tmp_path, sample_prompts=path)
    for chance in seeds("sample prompts", 2000):
        path.write_bytes(content := text_file(chance))
        refused_or_right(
            "sample prompts",
            lambda: watched.read(opts),
            lambda found, content=content: check_watched(found, content),
            [str(path)],
        )
