"""Picture files as pixels: of every mode, turned as the camera says, and cut where they are to be cut."""

from io import BytesIO

import numpy as np
import pytest
import torch
from dataset_files import add
from PIL import Image

from training.data import pictures
from training.data.buckets import Fit


def saved(image, ending="png", **named):
    file = BytesIO()
    image.save(file, ending, **named)
    return file.getvalue()


def colors(image):
    """The colours of the picture's top left and bottom right."""
    return image.getpixel((0, 0)), image.getpixel((image.width - 1, image.height - 1))


def halves(mode, first, second):
    """4 x 2 pixels, the left ones of one colour and the right ones of another."""
    image = Image.new(mode, (4, 2), first)
    image.paste(second, (2, 0, 4, 2))
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (halves("L", 0, 255), ((0, 0, 0), (255, 255, 255))),
        (halves("1", 0, 1), ((0, 0, 0), (255, 255, 255))),
        (halves("RGBA", (255, 0, 0, 255), (0, 0, 0, 0)), ((255, 0, 0), (255, 255, 255))),
        (halves("RGBA", (0, 0, 0, 128), (0, 0, 255, 255)), ((127, 127, 127), (0, 0, 255))),
        (halves("LA", (0, 255), (0, 0)), ((0, 0, 0), (255, 255, 255))),
        (halves("RGB", "red", "blue").quantize(2), ((255, 0, 0), (0, 0, 255))),
        (Image.fromarray(np.array([[0, 65535], [32896, 32896]], np.uint16)), ((0, 0, 0), (128, 128, 128))),
    ],
    ids=["grey", "black and white", "alpha", "half alpha", "grey with alpha", "palette", "16 bits"],
)
def test_every_mode_becomes_three_colours_on_white(image, expected):
    made = pictures.decode(saved(image))
    assert made.mode == "RGB"
    assert colors(made) == expected


def test_a_transparent_palette_colour_becomes_white():
    image = halves("RGB", "red", "blue").quantize(2)
    clear = image.getpixel((0, 0))
    assert colors(pictures.decode(saved(image, transparency=clear))) == ((255, 255, 255), (0, 0, 255))


def test_cmyk_becomes_rgb():
    made = pictures.decode(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg"))
    red, green, blue = np.asarray(made)[8, 8]
    assert red > 200 > 60 > max(green, blue)


def test_the_camera_orientation_is_obeyed():
    image, exif = halves("RGB", "black", "white"), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    made = pictures.decode(saved(image, exif=exif))
    assert made.size == (2, 4)
    assert colors(made) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(ValueError, match="is not a readable picture: "):
        pictures.decode(content)


@pytest.mark.parametrize("ending", ["png", "jpeg", "webp", "bmp"])
def test_a_truncated_picture_is_refused(ending):
    noise = Image.effect_noise((256, 256), 100).convert("RGB")
    with pytest.raises(ValueError, match="is not a readable picture: "):
        pictures.decode(saved(noise, ending)[:-600])


def test_a_picture_of_unknown_brightness_is_refused():
    with pytest.raises(ValueError, match="is not a readable picture: nothing says how bright"):
        pictures.decode(saved(Image.new("F", (2, 2), 0.5), "tiff"))


def test_a_picture_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"is not a readable picture: .*exceeds limit of 200 pixels"):
        pictures.decode(saved(Image.new("RGB", (100, 100))))


def test_a_window_is_cut_out_of_the_scaled_picture(tmp_path):
    image = Image.new("RGB", (64, 32), "blue")
    image.paste((255, 0, 0), (16, 0, 48, 32))
    fit = Fit((32, 16), (16, 16))
    middle = pictures.window(image, fit, fit.centre)
    assert middle.shape == (16, 16, 3)
    assert middle.dtype == torch.float32
    torch.testing.assert_close(middle[:, 2:-2], torch.tensor([1.0, 0.0, 0.0]).expand(16, 12, 3), rtol=0, atol=1 / 255)
    left = pictures.window(image, fit, (0, 0))
    assert left[:, :6, 2].min() > 0.9
    assert left[:, -6:, 0].min() > 0.9
    assert torch.equal(pictures.window(image, fit, (0, 0), flipped=True), left.flip(1))


def test_a_window_is_the_same_as_of_the_whole_scaled_picture():
    image = Image.effect_noise((75, 41), 100).convert("RGB")
    fit = Fit((59, 32), (32, 32))
    whole = pictures.window(image, Fit((59, 32), (59, 32)), (0, 0))
    torch.testing.assert_close(pictures.window(image, fit, (20, 0)), whole[:, 20:52], rtol=0, atol=2 / 255)


def test_a_very_narrow_picture_does_not_fill_the_memory():
    fit = Fit((512 * 20_000, 512), (512, 512))
    assert pictures.window(Image.new("RGB", (20_000, 1)), fit, fit.centre).shape == (512, 512, 3)


def test_a_file_of_the_disk_is_read(tmp_path):
    assert pictures.decode(add(tmp_path, "a.png", size=(3, 5)).read_bytes()).size == (3, 5)
