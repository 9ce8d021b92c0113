"""Captioned pictures in kohya's folders: what is found, and what is refused by name."""

import pytest
import torch
from PIL import Image

from training import data


def add(folder, name, caption: str | None = "a cat", size=(8, 8), color=(255, 0, 0), mode="RGB"):
    folder.mkdir(exist_ok=True)
    Image.new(mode, size, color).save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(f" {caption}\n", encoding="utf-8")
    return folder / name


def test_samples_are_found_in_order_with_captions_and_repeats(tmp_path):
    add(tmp_path / "10_cat", "b.png", "second")
    add(tmp_path / "10_cat", "a.JPG", "first")
    add(tmp_path / "2_dog", "c.webp", "third")
    (tmp_path / "notes.txt").touch()
    found = data.find(tmp_path, ".txt")
    assert [(s.picture.name, s.caption, s.repeats) for s in found] == [
        ("a.JPG", "first", 10),
        ("b.png", "second", 10),
        ("c.webp", "third", 2),
    ]


def test_captions_may_have_another_ending(tmp_path):
    picture = add(tmp_path / "1_x", "a.png", None)
    picture.with_suffix(".caption").write_text("red", encoding="utf-8")
    assert data.find(tmp_path, ".caption")[0].caption == "red"


def test_a_picture_without_caption_is_named(tmp_path):
    add(tmp_path / "1_x", "a.png", None)
    with pytest.raises(ValueError, match=r"a\.png has no caption: a\.txt is missing"):
        data.find(tmp_path, ".txt")


@pytest.mark.parametrize("name", ["cat", "x_cat", "-1_cat", "10", "0_cat"])
def test_a_folder_without_repeats_is_named(tmp_path, name):
    add(tmp_path / name, "a.png")
    with pytest.raises(ValueError, match=rf"{name}: a picture folder is named \{{repeats\}}_\{{name\}}"):
        data.find(tmp_path, ".txt")


@pytest.mark.parametrize("folder", ["", "1_empty"])
def test_no_pictures_at_all_are_an_error(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=r"no pictures \(\.bmp, .*\) in the folders of"):
        data.find(tmp_path, ".txt")


def test_a_picture_is_scaled_and_cropped_around_its_middle(tmp_path):
    image = Image.new("RGB", (64, 32), (0, 0, 255))
    image.paste((255, 0, 0), (16, 0, 48, 32))
    image.save(tmp_path / "wide.png")
    pixels = data.open_picture(tmp_path / "wide.png", 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[:, 2:-2], torch.tensor([1.0, 0.0, 0.0]).expand(16, 12, 3), rtol=0, atol=1 / 255)


@pytest.mark.parametrize(("mode", "color"), [("L", 255), ("RGBA", (255, 255, 255, 255)), ("P", 0)])
def test_every_mode_becomes_three_colours(tmp_path, mode, color):
    assert data.open_picture(add(tmp_path, "a.png", mode=mode, color=color), 8).shape == (8, 8, 3)


def test_the_camera_orientation_is_obeyed(tmp_path):
    image, exif = Image.new("RGB", (8, 8), (0, 0, 0)), Image.Exif()
    image.paste((255, 255, 255), (0, 0, 8, 4))
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = data.open_picture(tmp_path / "turned.png", 8)
    assert pixels[0].max() < 0.1 < 0.9 < pixels[-1].min()


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_corrupt_picture_is_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.png is not a readable picture"):
        data.open_picture(tmp_path / "bad.png", 8)


def test_a_truncated_picture_is_named(tmp_path):
    whole = add(tmp_path, "a.png", size=(256, 256))
    whole.write_bytes(whole.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"a\.png is not a readable picture"):
        data.open_picture(whole, 8)


def test_pictures_are_drawn_as_often_as_they_repeat():
    latents = torch.arange(2.0).reshape(2, 1, 1, 1)
    order = torch.tensor([0, 1, 1, 1])
    dataset = data.Dataset(latents, latents[..., 0] + 10, latents[:1, ..., 0], order)
    x0, context = dataset.draw(4000, torch.Generator().manual_seed(0))
    assert x0.shape == (4000, 1, 1, 1)
    assert torch.equal(x0[..., 0] + 10, context)
    assert abs(x0.mean().item() - 0.75) < 0.03
