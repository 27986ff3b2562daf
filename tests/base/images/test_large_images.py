"""Large images are shrunk while they are loaded, and what lacks only its end mark is whole."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.images.large_images import shrink_on_load
from dreamloom.base.images.missing_end import decode_own, with_end
from dreamloom.base.images.pixels import ImageError, check_whole, decode


def scene(width: int = 96, height: int = 64) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("format_name", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("TIFF", "RGB")])
def test_a_large_image_has_its_pixels_and_its_size_of_before(format_name: str, mode: str) -> None:
    data = saved(scene().convert(mode), format_name)
    small, size = shrink_on_load(data, 96 * 64, 48 * 32)
    assert (small.size, small.mode, size) == ((48, 32), "RGB", (96, 64))
    expected = decode(data).resize((48, 32), Image.Resampling.BOX)
    assert np.abs(np.asarray(small, int) - np.asarray(expected)).mean() < 3


def test_a_turned_one_stands_upright() -> None:
    values = Image.Exif()
    values[0x0112] = 6
    small, size = shrink_on_load(saved(scene(), "JPEG", exif=values), 10**6, 48 * 32)
    assert (small.size, size) == ((32, 48), (64, 96))


def test_transparency_lies_on_white_and_16_bits_become_8() -> None:
    small, _ = shrink_on_load(saved(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"), 10**6, 400)
    assert small.getpixel((5, 5)) == (255, 255, 255)
    gray = Image.fromarray(np.full((40, 40), 32768, np.uint16))
    pixel = shrink_on_load(saved(gray, "PNG"), 10**6, 400)[0].getpixel((5, 5))
    assert isinstance(pixel, tuple) and abs(pixel[0] - 128) < 3


def test_what_is_larger_or_cut_short_is_refused() -> None:
    data = saved(scene(), "JPEG")
    with pytest.raises(ImageError, match="too_many_pixels"):
        shrink_on_load(data, 96 * 64 - 1, 400)
    with pytest.raises(ImageError, match="truncated"):
        shrink_on_load(data[: len(data) // 2], 10**6, 400)


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize(("mode", "options"), [("RGB", {}), ("L", {}), ("RGB", {"restart_marker_blocks": 2})])
def test_a_jpeg_without_its_end_mark_gets_it(cut: int, mode: str, options: dict[str, Any]) -> None:
    data = saved(scene().convert(mode), "JPEG", **options)
    whole = with_end(data[:-cut])
    assert whole == data
    check_whole(whole)


@pytest.mark.parametrize("cut", [20, 40, 100])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_one_that_lacks_more_stays_truncated(cut: int, format_name: str) -> None:
    data = saved(scene(), format_name)
    assert with_end(data[: -cut - (12 if format_name == "PNG" else 0)]) is None


@pytest.mark.parametrize("cut", [1, 4, 11, 12])
def test_a_png_without_its_end_gets_it(cut: int) -> None:
    data = saved(scene(), "PNG")
    assert with_end(data[:-cut]) == data


def test_others_are_left_alone() -> None:
    progressive = saved(scene(), "JPEG", progressive=True)
    assert with_end(progressive[:-2]) is None, "scans may be missing"
    assert [with_end(data) for data in (b"", b"GIF89a", progressive, saved(scene(), "PNG"))] == [None] * 4


@given(st.integers(0, 2**32), st.integers(3, 200))
def test_pixels_that_are_missing_are_never_made_up(seed: int, cut: int) -> None:
    """The last byte may hold nothing but padding, or what lies outside the image."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8))
    data = saved(noise, "JPEG")
    whole = with_end(data[:-cut])
    assert whole is None or (cut < 8 and decode(whole).tobytes() == decode(data).tobytes())


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_an_image_of_one_s_own_is_decoded_though_it_is_large_and_lacks_its_end(format_name: str) -> None:
    data = saved(Image.new("L", (9_500, 9_450), 90), format_name)  # more than decode takes
    with pytest.raises(ImageError, match="too_many_pixels"):
        decode(data)
    lacking = data[: -2 if format_name == "JPEG" else -12]
    assert with_end(lacking) == data
    image = decode_own(lacking, at_least=64)
    assert (image.size, image.getpixel((9, 9))) == ((4_750, 4_725), (90, 90, 90))
    with pytest.raises(ImageError, match="truncated"):
        decode_own(data[:-40])
