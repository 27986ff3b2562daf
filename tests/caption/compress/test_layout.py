"""Compressed images are never larger than asked, nor than they were, and keep their shape to within a pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.caption.compress.config import CompressConfig, max_area
from dreamloom.caption.compress.layout import Layout, fit, lay_out, render

sides = st.integers(1, 40_000)
sizes = st.tuples(sides, sides)
limits = st.tuples(st.integers(1, 9_999), st.integers(1, 9_999))


@given(sizes, st.none() | limits, st.none() | st.integers(1, 10**8))
def test_a_size_fits_and_keeps_its_shape(
    size: tuple[int, int], within: tuple[int, int] | None, area: int | None
) -> None:
    width, height = fit(size, within, area)
    assert 1 <= width <= size[0] and 1 <= height <= size[1]
    assert within is None or (width <= within[0] and height <= within[1])
    assert area is None or width * height <= area
    if min(width, height) > 1:  # a line can't be thinner than a pixel
        assert abs(width - size[0] * height / size[1]) <= max(1, size[0] / size[1])
        assert abs(height - size[1] * width / size[0]) <= max(1, size[1] / size[0])


@given(sizes, limits)
def test_an_image_is_shrunk_no_more_than_needed(size: tuple[int, int], within: tuple[int, int]) -> None:
    width, height = fit(size, within, None)
    assert width == min(within[0], size[0]) or height == min(within[1], size[1])


@given(sizes, limits, st.sampled_from(["resize", "crop", "pad"]), st.none() | st.floats(0, 50))
def test_no_layout_is_larger_than_asked(
    size: tuple[int, int], limit: tuple[int, int], how: str, megapixels: float | None
) -> None:
    text = f"{limit[0]}x{limit[1]}"
    if how == "pad":
        layout = lay_out(size, CompressConfig(resize=text, pad="white"))
        assert layout.canvas == limit
    else:
        config = CompressConfig.model_validate({how: text, "megapixels": megapixels})
        layout = lay_out(size, config)
        assert layout.canvas == layout.shown
        assert layout.shown[0] <= limit[0] and layout.shown[1] <= limit[1]
        assert layout.shown[0] * layout.shown[1] <= (max_area(config) or 10**12)
    for axis in (0, 1):
        assert layout.shown[axis] <= layout.kept[axis] <= size[axis]
    if how == "crop" and size[0] >= limit[0] and size[1] >= limit[1] and not megapixels:
        assert layout.shown == limit


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (CompressConfig(), Layout((4000, 3000), (4000, 3000), (1414, 1060), (1414, 1060))),
        (CompressConfig(megapixels=0), Layout((4000, 3000), (4000, 3000), (4000, 3000), (4000, 3000))),
        (CompressConfig(resize="1024x512"), Layout((4000, 3000), (4000, 3000), (682, 512), (682, 512))),
        (CompressConfig(crop="512"), Layout((4000, 3000), (3000, 3000), (512, 512), (512, 512))),
        (CompressConfig(resize="512", pad="red"), Layout((4000, 3000), (4000, 3000), (512, 384), (512, 512))),
    ],
)
def test_a_photo_of_twelve_megapixels(config: CompressConfig, layout: Layout) -> None:
    assert lay_out((4000, 3000), config) == layout


def test_what_is_drawn_is_the_middle_with_color_around_it() -> None:
    stripes = np.zeros((60, 120, 3), dtype=np.uint8)
    stripes[:, 30:90] = 255
    cropped = render(Image.fromarray(stripes), lay_out((120, 60), CompressConfig(crop="60")), (0, 0, 0))
    assert cropped.size == (60, 60) and np.asarray(cropped).min() == 255
    padded = render(Image.fromarray(stripes), lay_out((120, 60), CompressConfig(resize="60", pad="red")), (255, 0, 0))
    assert padded.size == (60, 60)
    assert padded.getpixel((30, 2)) == (255, 0, 0) and padded.getpixel((30, 30)) == (255, 255, 255)
    mask = render(Image.fromarray(stripes[::2, ::2, 0]), lay_out((120, 60), CompressConfig(crop="60")), (0, 0, 0))
    assert mask.size == (60, 60) and np.asarray(mask).min() > 190  # a mask at half the resolution
