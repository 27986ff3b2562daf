"""Images that were copied as text are told from those that were not."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.images.line_ends import has_converted_line_ends
from dreamloom.base.images.pixels import ImageError, check_whole, decode


def saved(format_name: str, side: int = 256, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format_name, quality=90)
    return stream.getvalue()


@pytest.mark.parametrize("format_name", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.decode("utf-8", "replace").encode(),
        lambda data: data.decode("latin-1").encode(),
        lambda data: data.decode("cp1252", "replace").encode(),
    ],
    ids=["crlf", "utf-8", "latin-1", "cp1252"],
)
def test_an_image_that_was_copied_as_text_says_so(format_name: str, damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    data = damage(saved(format_name))
    (tmp_path / "a").write_bytes(data)
    for check in (check_whole, decode):
        with pytest.raises(ImageError, match=r"truncated: its bytes were converted|truncated: failed to read"):
            check(data)
        with pytest.raises(ImageError, match="truncated"):
            check(tmp_path / "a")


def test_carriage_returns_that_became_line_feeds_are_told() -> None:
    data = saved("JPEG", 400)
    decode(data)
    with pytest.raises(ImageError, match="were converted as if they were text"):
        decode(data.replace(b"\r", b"\n"))


def test_a_large_webp_is_told_by_its_path_too(tmp_path: Path) -> None:
    data = saved("WEBP", 512).replace(b"\n", b"\r\n")
    assert len(data) > 2**17
    (tmp_path / "a.webp").write_bytes(data)
    assert has_converted_line_ends(data) and has_converted_line_ends(tmp_path / "a.webp")


@given(st.integers(0, 2**32), st.integers(8, 40), st.sampled_from(["JPEG", "WEBP"]))
def test_an_image_as_it_is_is_no_text(seed: int, side: int, format_name: str) -> None:
    assert not has_converted_line_ends(saved(format_name, side, seed))


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
def test_images_of_one_color_are_no_text(options: dict[str, bool]) -> None:
    for color in ((0, 0, 0), (13, 10, 13), (10, 13, 10)):
        stream = io.BytesIO()
        Image.new("RGB", (1000, 1000), color).save(stream, "JPEG", **options)
        check_whole(stream.getvalue())
