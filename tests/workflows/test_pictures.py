"""demo/workflows/__main__.py: how pictures are put together into a thumbnail."""

from PIL import Image

from demo.workflows.__main__ import WIDTH, shelf, stacked


def of(width: int, height: int, colour: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def test_square_pictures_stand_beside_each_other_and_strips_below():
    assert shelf([of(10, 10), of(10, 10), of(10, 10)]).size == (30, 10)
    assert shelf([of(30, 10), of(30, 10)]).size == (30, 20)


def test_a_thumbnail_is_as_wide_as_it_should_be():
    sheet = stacked([of(2 * WIDTH, 100), of(WIDTH // 2, 30, "blue")])
    assert sheet.size == (WIDTH, 50 + 60)
    assert sheet.getpixel((5, 45)) == (255, 0, 0)
    assert sheet.getpixel((5, 55)) == (0, 0, 255)
