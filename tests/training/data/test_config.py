"""Dataset TOML: which setting holds for which folder, and the mistakes that are named."""

import pytest
from dataset_files import add, opts_of

from training.data.survey import subsets


def written(folder, text):
    """Options with this dataset TOML; `{}` in it stands for a folder of one picture."""
    add(folder / "pictures", "a.png")
    (folder / "data.toml").write_text(text.replace("{}", f"'{folder / 'pictures'}'"), encoding="utf-8")
    return opts_of(folder, dataset_config=folder / "data.toml", keep_tokens=1)


def test_the_nearest_setting_wins(tmp_path):
    text = """
        [general]
        num_repeats = 2
        flip_aug = true
        caption_dropout_rate = 0.1
        resolution = 128
        [[datasets]]
        num_repeats = 3
        resolution = [96, 64]
        caption_dropout_rate = 1
        [[datasets.subsets]]
        image_dir = {}
        [[datasets.subsets]]
        image_dir = {}
        num_repeats = 4
        flip_aug = false
        keep_tokens = 5
        class_tokens = "cat"
        caption_prefix = "photo,"
        caption_suffix = "best"
        [[datasets]]
        [[datasets.subsets]]
        image_dir = {}
    """
    first, second, third = subsets(written(tmp_path, text))
    assert [subset.repeats for subset in (first, second, third)] == [3, 4, 2]
    assert [subset.opts.flip_aug for subset in (first, second, third)] == [True, False, True]
    assert [subset.opts.size for subset in (first, second, third)] == [(96, 64), (96, 64), (128, 128)]
    assert [subset.opts.caption_dropout_rate for subset in (first, second, third)] == [1.0, 1.0, 0.1]
    assert [subset.opts.keep_tokens for subset in (first, second, third)] == [1, 5, 1]
    assert (second.class_tokens, second.prefix, second.suffix) == ("cat", "photo,", "best")
    assert (first.class_tokens, first.prefix, first.suffix) == ("", "", "")


ONE = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = {}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + "num_repeat = 2", r"unknown key 'num_repeat' in \[\[datasets.subsets\]\]; did you mean 'num_repeats'\?"),
        ("[generall]\n" + ONE, r"unknown key 'generall' in the file; did you mean 'general'\?"),
        (ONE + "zzz = 2", r"unknown key 'zzz' in \[\[datasets.subsets\]\]$"),
        (
            ONE + "resolution = 64",
            r"resolution belongs into \[general\] or \[\[datasets\]\], not into \[\[datasets.sub",
        ),
        ("[general]\nimage_dir = {}\n" + ONE, r"image_dir belongs into \[\[datasets.subsets\]\], not into \[general\]"),
        ("flip_aug = true\n" + ONE, r"flip_aug belongs into \[general\] or .* not into the file"),
        ("[general]\nbatch_size = 2\n" + ONE, r"batch_size is not for \[general\]: train_batch_size is the same"),
        (ONE + "is_reg = true", "is_reg is not for .*: there are no regularisation pictures"),
        (ONE + "color_aug = true", "color_aug is not for .*: the teacher's colours"),
        (ONE + "num_repeats = '2'", "num_repeats must be of type int, got '2'"),
        (ONE + "num_repeats = true", "num_repeats must be of type int, got True"),
        (ONE + "flip_aug = 1", "flip_aug must be of type bool, got 1"),
        (ONE + "num_repeats = 0", "num_repeats must be at least 1, got 0"),
        (ONE + "caption_dropout_rate = 2.0", r"caption_dropout_rate must be in \[0, 1\], got 2.0"),
        (ONE + "caption_separator = ''", "caption_separator must not be empty"),
        (ONE + "shuffle_caption = true", "shuffle_caption changes captions at every step"),
        (ONE + "random_crop = true", "random_crop cuts anew at every step"),
        ("[general]\nresolution = [64, 64, 64]\n" + ONE, "resolution must be a number or width,height"),
        ("[general]\nresolution = 100\n" + ONE, "resolution must be a multiple of 8, got 100"),
        (
            "[general]\nenable_bucket = true\nresolution = 64\n" + ONE,
            "resolution 64,64 must be between min_bucket_reso",
        ),
        ("[general]\nbucket_no_upscale = true\n" + ONE, "bucket_no_upscale has no effect without enable_bucket = true"),
        ("[[datasets]]\n[[datasets.subsets]]\n", "image_dir must be a folder, got ''"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'nowhere'", "image_dir must be a folder, got 'nowhere'"),
        ("[general]\n", r"there must be a \[\[datasets\]\] at least"),
        ("[[datasets]]\n", r"there must be a \[\[datasets.subsets\]\] at least"),
        ("general = 1\n" + ONE, r"\[general\] must be a table, got 1"),
        ("datasets = [1]", r"\[\[datasets\]\] must be a table, got 1"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_path(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"data\.toml: {message}"):
        subsets(written(tmp_path, text))
