"""Formats are told by bytes: those that can be decoded are, and no other file is taken for one of them."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.files.image_types import DECODED_EXTENSIONS
from dreamloom.base.images.formats import begins_like_an_image, decoded_formats
from dreamloom.base.images.pixels import ImageError, decode, read_header

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))


def saved(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jp2", {"format": "JPEG2000", "irreversible": False}),
        ("a.j2k", {"format": "JPEG2000", "no_jp2": True}),
        ("a.tga", {"format": "TGA"}),
        ("packed.tga", {"format": "TGA", "compression": "tga_rle"}),
        ("a.ppm", {"format": "PPM"}),
        ("a.ico", {"format": "ICO", "sizes": [(32, 24)]}),
        ("a", {"format": "PNG"}),
    ],
)
def test_what_pillow_can_decode_is_decoded(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    data = saved(PIXELS, **options)
    file = tmp_path / name
    file.write_bytes(data)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(PIXELS))
    assert np.array_equal(np.asarray(decode(file)), np.asarray(PIXELS))
    assert read_header(data).width == 32
    with pytest.raises(ImageError) as error:
        decode(data[: len(data) // 2])
    assert error.value.reason in ("truncated", "not_an_image")


@pytest.mark.parametrize(("mode", "kind"), [("L", "gray"), ("P", "palette"), ("RGBA", "alpha")])
def test_other_kinds_of_tga_are_decoded(mode: str, kind: str) -> None:
    image = PIXELS.convert(mode)
    assert np.array_equal(np.asarray(decode(saved(image, format="TGA"))), np.asarray(image.convert("RGB"))), kind


def test_a_gray_ppm_of_16_bits_stays_as_dark_as_it_is() -> None:
    data = b"P5 2 1 65535\n" + struct.pack(">2H", 200, 65535)
    assert np.asarray(decode(data))[0, :, 0].tolist() == [1, 255]


@given(st.binary(max_size=400))
def test_other_bytes_are_no_image(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


def test_digits_of_a_plain_ppm_are_bounded_as_they_cost_python() -> None:
    with pytest.raises(ImageError, match="too_many_pixels"):
        decode(b"P1 5000 5000\n" + b"1 " * 25_000_000)


def test_an_image_inside_an_icon_is_bounded() -> None:
    inner = bytearray(saved(Image.new("1", (64, 64)), format="PNG"))
    inner[16:24] = struct.pack(">2I", 20_000, 20_000)
    entry = struct.pack("<4B2H2I", 64, 64, 0, 0, 1, 32, len(inner), 22)
    with pytest.raises(ImageError) as error:
        decode(b"\0\0\1\0\1\0" + entry + bytes(inner))
    assert error.value.reason in ("too_many_pixels", "truncated")


def test_pixels_of_a_kind_that_is_not_decoded_are_told_as_such_and_not_as_damage() -> None:
    ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
    twelve_bits = bytearray(saved(PIXELS, format="JPEG"))
    twelve_bits[twelve_bits.index(b"\xff\xc0") + 4] = 12
    kinds = {
        cv2.imencode(".tiff", ramp)[1].tobytes(): "3 × 32 bits, floating point",
        cv2.imencode(".tiff", ramp[..., 0].astype(float))[1].tobytes(): "1 × 64 bits, floating point",
        bytes(twelve_bits): "12-bit",
    }
    for data, words in kinds.items():
        with pytest.raises(ImageError, match=f"unsupported.*{words}.*8 bits"):
            decode(data)
        with pytest.raises(ImageError, match="truncated"):
            decode(data[:16])


@pytest.mark.parametrize(
    "beginning", [b"\0\0\0\x18ftypheic", b"\xff\x0a", b"8BPS", b"\xff\xd8\xff\xe0", b"qoif", b"MM\0+", b"BM\x09\1"]
)
def test_a_file_without_extension_is_an_image_by_its_first_bytes(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "img").write_bytes(beginning + bytes(20))
    assert begins_like_an_image(tmp_path / "img")


@pytest.mark.parametrize("beginning", [b"", b"\0\0\0\x18ftypisom", b"\x1aE\xdf\xa3", b"a caption"])
def test_films_and_texts_are_none(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "film").write_bytes(beginning + bytes(20))
    assert not begins_like_an_image(tmp_path / "film")
    assert not begins_like_an_image(tmp_path / "nowhere")


@pytest.mark.parametrize(("module", "name"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")])
def test_what_plugins_decode_is_decoded_where_they_are_installed(module: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(module)
    assert decoded_formats()
    image = Image.linear_gradient("L").convert("RGB").crop((0, 0, 64, 256))
    data = saved(image, format=name, quality=95)
    assert (read_header(data).format, read_header(data).width, read_header(data).plain) == (name, 64, False)
    assert np.abs(np.asarray(decode(data), int) - np.asarray(image)).max() < 8
    assert {".heic" if name == "HEIF" else ".jxl"} <= DECODED_EXTENSIONS
