"""Aspect buckets: which there are, and how any picture becomes one of them."""

from pathlib import Path

import pytest
from dataset_files import opts_of
from hypothesis import assume, given
from hypothesis import strategies as st

from training.data import buckets

NOWHERE = Path("nowhere")
SIDES = st.integers(1, 4000)
PICTURES = st.tuples(SIDES, SIDES)


@st.composite
def settings(draw):
    """((width, height), least, most, step) that go together."""
    step = draw(st.sampled_from([8, 32, 64]))
    least, most = draw(st.integers(64, 512)), draw(st.integers(512, 2048))
    return draw(st.tuples(*[st.integers(least, most)] * 2)), least, most, step


def made(limits):
    try:
        return buckets.resolutions(*limits)
    except ValueError:
        assume(False)
        raise


def test_sd15s_buckets_are_kohyas():
    found = buckets.resolutions((512, 512), 256, 1024, 64)
    assert {(256, 1024), (320, 768), (384, 640), (448, 576), (512, 512), (576, 448), (1024, 256)} <= set(found)
    assert len(found) == 17


@given(settings())
def test_buckets_keep_to_the_area_the_limits_and_the_steps(limits):
    (width, height), least, most, step = limits
    found = made(limits)
    assert all(w * h <= width * height for w, h in found)
    assert all(least <= side <= most and side % step == 0 for pair in found for side in pair)
    assert {(h, w) for w, h in found} == set(found)


@given(settings(), PICTURES)
def test_a_picture_goes_to_the_nearest_aspect_ratio_and_covers_it(limits, picture):
    found = made(limits)
    (width, height), least, most, step = limits
    named = {"min_bucket_reso": least, "max_bucket_reso": most, "bucket_reso_steps": step}
    opts = opts_of(NOWHERE, enable_bucket=True, resolution=f"{width},{height}", **named)
    fit = buckets.fit(picture, opts)
    aspect = picture[0] / picture[1]
    nearest = min(abs(w / h - aspect) for w, h in found)
    assert abs(fit.bucket[0] / fit.bucket[1] - aspect) == pytest.approx(nearest)
    assert_covers(picture, fit)


@given(PICTURES)
def test_without_buckets_every_picture_covers_the_resolution(picture):
    fit = buckets.fit(picture, opts_of(NOWHERE, resolution="96,64"))
    assert fit.bucket == (96, 64)
    assert_covers(picture, fit)


@given(PICTURES, st.sampled_from([(512, 512), (510, 514), (768, 320)]), st.sampled_from([8, 64]))
def test_without_enlarging_a_bucket_is_within_the_picture_and_the_area(picture, size, step):
    area = size[0] * size[1]
    try:
        fit = buckets.without_enlarging(picture, area, step)
    except ValueError:
        assert min(picture) < step or max(picture) / min(picture) > area / step**2 / 2
        return
    assert fit.bucket[0] * fit.bucket[1] <= area
    for whole, scaled, side in zip(picture, fit.scaled, fit.bucket, strict=True):
        assert 0 < side <= scaled <= whole
        assert side % step == 0
        assert scaled - side < step
    if picture[0] * picture[1] <= area:
        assert fit.scaled == picture


def assert_covers(picture, fit):
    """The scaled picture is as large as the bucket in one direction, and in the other as its aspect ratio demands."""
    assert min(fit.room) == 0
    assert fit.centre == (fit.room[0] // 2, fit.room[1] // 2)
    scale = max(b / p for b, p in zip(fit.bucket, picture, strict=True))
    assert all(abs(s - p * scale) <= 1 for s, p in zip(fit.scaled, picture, strict=True))


def test_a_picture_with_the_size_of_a_bucket_stays_as_it_is():
    sizes = [(256, 1024), (320, 768), (512, 512)]
    assert buckets.nearest((320, 768), sizes) == (320, 768)
    assert buckets.nearest((321, 768), sizes) == (320, 768)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"resolution": "100"}, "resolution must be a multiple of 8, got 100,100"),
        ({"resolution": "512", "enable_bucket": True, "bucket_reso_steps": 12}, "bucket_reso_steps must be a multiple"),
        ({"resolution": "1280", "enable_bucket": True}, "1280,1280 must be between .* 256 and max_bucket_reso 1024"),
        (
            {"resolution": "300", "enable_bucket": True, "max_bucket_reso": 310, "min_bucket_reso": 270},
            "no bucket of the area of 300,300 has sides of a multiple of bucket_reso_steps 64",
        ),
    ],
)
def test_impossible_sizes_are_named(named, message):
    with pytest.raises(ValueError, match=message):
        buckets.check(opts_of(NOWHERE, **named))


def test_the_autoencoder_may_want_larger_multiples():
    opts = opts_of(NOWHERE, resolution="72")
    buckets.check(opts)
    with pytest.raises(ValueError, match="resolution must be a multiple of 16, got 72,72"):
        buckets.check(opts, 16)
