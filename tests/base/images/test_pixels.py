"""Images are decoded right or refused with a reason; compared with the pixels they were made from."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bench.hostile_images import TURNED, rgb_profile, swapped_profile
from dreamloom.base.images.pixels import ImageError, check_whole, decode, decode_alpha, read_header

Pixels = npt.NDArray[Any]

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "progressive": ("JPEG", {"quality": 95, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff deflate": ("TIFF", {"compression": "tiff_deflate"}),
    "avif": ("AVIF", {"quality": 90}),
}


def scene(height: int = 40, width: int = 56) -> Pixels:
    """Smooth, and different in each corner, so that a turn or a swapped channel shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)


def encoded(pixels: Pixels, form: str, **more: Any) -> bytes:
    name, options = FORMS[form]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, name, **options, **more)
    return out.getvalue()


def far(a: Image.Image, b: Pixels) -> float:
    """The greatest difference of two images' channels; of another size they are as far as can be."""
    pixels = np.asarray(a, int)
    return float(np.abs(pixels - b).max()) if pixels.shape == b.shape else 255.0


@pytest.mark.parametrize("form", ["jpeg", "png", "webp lossless", "tiff", "avif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_turned_images_stand_upright(form: str, orientation: int) -> None:
    upright = scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(TURNED[orientation](upright)), form, exif=exif)
    assert far(decode(data), upright) <= (12 if form in ("jpeg", "avif") else 0)
    header = read_header(data)
    assert (header.width, header.height) == (56, 40)
    assert header.plain == (orientation == 1 and form in ("jpeg", "png", "webp lossless"))


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits_scale_to_eight(extension: str) -> None:
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = cv2.imencode(extension, deep)[1].tobytes()
    assert far(decode(data), np.repeat((deep / 257.0)[..., None], 3, -1)) <= 0.5
    coloured = cv2.imencode(extension, np.dstack([deep, deep.T, deep[::-1]]))[1].tobytes()
    assert far(decode(coloured), np.dstack([deep[::-1], deep.T, deep]) / 257.0) < 1
    assert not read_header(coloured).plain


def tiff(rows: bytes, width: int, height: int, bits: int, photometric: int = 1, sample: int = 1) -> bytes:
    """An uncompressed little-endian greyscale TIFF, made by the book (TIFF 6.0)."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(rows)), (339, 3, sample)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_white_is_what_the_bits_can_hold() -> None:
    def grey(data: bytes) -> list[int]:
        return [int(v) for v in np.asarray(decode(data))[0, :, 0]]

    twelve = bytes.fromhex("000 7ff fff 000".replace(" ", ""))  # two values in three bytes
    assert grey(tiff(twelve, 4, 1, 12)) == [0, 127, 255, 0]
    dark = struct.pack("<2H", 0, 291)
    assert grey(tiff(dark, 2, 1, 16)) == [0, 1]
    assert grey(tiff(struct.pack("<2H", 0, 65535), 2, 1, 16, photometric=0)) == [255, 0]
    assert grey(tiff(struct.pack("<3h", -5, 0, 32767), 3, 1, 16, sample=2)) == [0, 0, 255]
    assert grey(tiff(struct.pack("<3f", 0, 0.5, 1), 3, 1, 32, sample=3)) == [0, 128, 255]
    assert grey(tiff(struct.pack("<3f", 0, float("nan"), 255), 3, 1, 32, sample=3)) == [0, 0, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_lies_under_transparent_pixels_is_not_seen(mode: str) -> None:
    grey = mode == "LA"
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3] = (200, 200 if grey else 0, 200 if grey else 0, 255)
    image = Image.fromarray(pixels)
    if mode == "LA":
        image = image.convert("LA")
    elif mode != "RGBA":
        image = image.quantize(4, method=Image.Quantize.FASTOCTREE)
    out = io.BytesIO()
    image.save(out, "PNG")
    for background in ((255, 255, 255), (10, 20, 30)):
        shown = np.asarray(decode(out.getvalue(), background=background))
        assert tuple(shown[0, 5]) == background
        assert abs(int(shown[0, 0, 0]) - 200) <= 1
    assert not read_header(out.getvalue()).plain and read_header(out.getvalue()).transparent
    assert np.asarray(decode_alpha(out.getvalue())).tolist() == [[255, 255, 255, 0, 0, 0]] * 4


@pytest.mark.parametrize("deep", [False, True])
def test_the_colour_that_a_png_declares_clear_is(deep: bool) -> None:
    kind, clear, row = (16, b"\x12\x34", b"\0\x12\x34\xff\xff") if deep else (8, b"\0\x50", b"\0\x50\xff")
    header = struct.pack(">IIBBBBB", 2, 1, kind, 0, 0, 0, 0)
    assert [int(v) for v in np.asarray(decode(png(header, row, tRNS=clear), background=(9, 9, 9)))[0, :, 0]] == [9, 255]
    assert np.asarray(decode_alpha(png(header, row, tRNS=clear))).tolist() == [[0, 255]]


def test_alpha_is_upright_and_whole_where_there_is_none() -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 7))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, opaque = io.BytesIO(), io.BytesIO()
    image.save(turned, "PNG", exif=exif)
    Image.new("LAB", (2, 1)).save(opaque, "TIFF")  # its second band is called A
    assert np.asarray(decode_alpha(turned.getvalue())).tolist() == [[7], [255], [255]]
    assert np.asarray(decode_alpha(opaque.getvalue())).tolist() == [[255, 255]]
    assert not read_header(opaque.getvalue()).transparent


def png(header: bytes, rows: bytes, **chunks: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    more = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    body = more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def test_colours_are_converted_to_srgb() -> None:
    upright = scene()
    data = encoded(upright, "png", icc_profile=swapped_profile())
    assert (
        np.abs(np.asarray(decode(data), int) - upright[..., [1, 0, 2]]).mean() < 4
    )  # a gamma of 2.2 is not quite sRGB's
    assert not read_header(data).plain


def test_adobe_rgb_is_converted_though_its_name_is_nearly_srgb() -> None:
    """By the matrices of both (Adobe RGB (1998) Color Image Encoding; IEC 61966-2-1, adapted to D50)."""
    adobe = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
    srgb = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
    pixels = np.array([[(180, 90, 90), (90, 160, 90), (90, 90, 170), (128, 128, 128)]], np.uint8)
    linear = ((pixels / 255) ** 2.2 @ np.array(adobe) @ np.linalg.inv(srgb)).clip(0, 1)
    expected = 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    profile = rgb_profile("Adobe RGB (1998)", *adobe)
    shown = np.asarray(decode(encoded(pixels, "png", icc_profile=profile)), float)
    assert np.abs(shown - expected).max() < 2.5
    assert np.abs(shown - pixels)[0, :2].max() > 10


def test_srgb_and_broken_profiles_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all"):
        data = encoded(scene(), "png", icc_profile=profile)
        assert far(decode(data), scene()) == 0
        assert read_header(data).plain


def test_four_inks() -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :4] = (255, 0, 0, 0)  # cyan
    ink[:4, 4:] = (0, 0, 0, 255)  # black
    out = io.BytesIO()
    Image.fromarray(ink, "CMYK").save(out, "JPEG", quality=100)
    shown = np.asarray(decode(out.getvalue()), int)
    for pixel, colour in ((shown[1, 1], (0, 255, 255)), (shown[1, 6], (0, 0, 0)), (shown[6, 6], (255, 255, 255))):
        assert np.abs(pixel - colour).max() <= 6


def test_lab() -> None:
    out = io.BytesIO()
    Image.new("LAB", (4, 4), (255, 128, 128)).save(out, "TIFF")
    assert far(decode(out.getvalue()), np.full((4, 4, 3), 255)) <= 3


def test_lab_is_converted_as_the_cie_says_and_not_by_a_coarse_grid() -> None:
    lab = np.array([[[210, -74, 70], [130, 30, 30], [60, 12, -40], [240, 2, 20]]])  # L of 255, a and b signed
    out = io.BytesIO()
    Image.frombytes("LAB", (4, 1), lab.astype(np.uint8).tobytes()).save(out, "TIFF")
    y = (lab[..., 0] / 2.55 + 16) / 116
    roots = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)  # ISO 11664-4; Adobe's white is D50
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * (0.96422, 1, 0.82521)
    to_srgb = [
        (3.1338561, -1.6168667, -0.4906146),
        (-0.9787684, 1.9161415, 0.033454),
        (0.0719453, -0.2289914, 1.4052427),
    ]
    linear = np.clip(xyz @ np.array(to_srgb).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert far(decode(out.getvalue()), srgb * 255) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_image_that_breaks_off_is_refused_or_whole(form: str, share: float) -> None:
    data = encoded(scene(), form)
    beginning = data[: int(len(data) * share)]
    try:
        assert far(decode(beginning), np.asarray(decode(data), int)) == 0
        if FORMS[form][0] in ("JPEG", "PNG", "WEBP"):  # which are stored as they came
            assert cv2.imdecode(np.frombuffer(beginning, np.uint8), cv2.IMREAD_COLOR) is not None
    except ImageError as error:
        assert error.reason in ("empty", "truncated", "not_an_image", "unsupported")
        assert error.reason == "truncated" or len(beginning) < 60
        with pytest.raises(ImageError):
            check_whole(beginning)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_is_an_image_error_or_an_image_of_the_size_in_the_header(
    form: str, places: list[tuple[float, int]]
) -> None:
    data = bytearray(encoded(scene(), form))
    for place, value in places:
        data[int(place * len(data))] = value
    try:
        header = read_header(bytes(data))
        image = decode(bytes(data), max_pixels=10**6)
    except ImageError as error:
        assert "0x" not in str(error), "a line of the records must be the same in every run"
        return
    assert image.mode == "RGB"
    assert image.size == (header.width, header.height)


def test_plain_bytes_are_what_any_program_shows() -> None:
    for form in FORMS:
        for pixels in (scene(), scene()[..., 0]):
            data = encoded(pixels, form)
            assert read_header(data).plain == (FORMS[form][0] in ("JPEG", "PNG", "WEBP"))
            with Image.open(io.BytesIO(data)) as image:
                assert far(decode(data), np.asarray(image.convert("RGB"), int)) == 0


@pytest.mark.parametrize("at_least", [1, 64, 100, 256, 300, 511, 512, 600])
def test_scaled_decode_is_never_too_small(at_least: int) -> None:
    image = decode(encoded(scene(512, 700), "jpeg"), at_least=at_least)
    assert min(image.size) >= min(at_least, 512)
    assert min(image.size) <= max(2 * at_least, 512 // 8)
    small = cv2.resize(scene(512, 700), image.size, interpolation=cv2.INTER_AREA)
    assert np.abs(np.asarray(image, int) - small).mean() < 2


def test_bombs_are_refused_by_their_header() -> None:
    bomb = png(struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0), b"")
    big = png(struct.pack(">IIBBBBB", 12_000, 10_000, 8, 2, 0, 0, 0), b"")
    for data in (bomb, big):
        for reader in (decode, check_whole):
            with pytest.raises(ImageError) as caught:
                reader(data)
            assert caught.value.reason == "too_many_pixels"
    assert (read_header(big).width, read_header(big).height) == (12_000, 10_000)
    with pytest.raises(ImageError, match="too_many_pixels"):
        decode(encoded(scene(), "png"), max_pixels=56 * 40 - 1)
    assert decode(encoded(scene(), "png"), max_pixels=56 * 40).size == (56, 40)


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_animations_are_told_from_images(name: str) -> None:
    first, second = Image.fromarray(scene()), Image.fromarray(scene()[::-1])
    out = io.BytesIO()
    first.save(out, name, save_all=True, append_images=[second])
    moves = name != "MPO"
    assert read_header(out.getvalue()).animated == moves
    assert np.abs(np.asarray(decode(out.getvalue()), int) - scene()).mean() < 12
    if moves:
        with pytest.raises(ImageError, match="animated"):
            decode(out.getvalue(), animated="reject")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "not_an_image"),
        (b"%PDF-1.7", "not_an_image"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\0\0\x01\0\x01\0" + bytes(60), "truncated"),
        (b"8BPS" + bytes(60), "unsupported"),
        (b"qoif" + bytes(60), "unsupported"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    file.write_bytes(data)
    for source in (data, file):
        for reader in (read_header, decode, check_whole):
            with pytest.raises(ImageError) as caught:
                reader(source)
            assert caught.value.reason == reason
    with pytest.raises(ImageError, match="missing_file"):
        decode(tmp_path / "no.jpg")


def test_no_warning_gets_out(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(png(struct.pack(">IIBBBBB", 12_000, 10_000, 1, 0, 0, 0, 0), b""))
    broken_exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\0\0\0\0\0\xff\0"
    (tmp_path / "exif.jpg").write_bytes(encoded(scene(), "jpeg", exif=broken_exif))
    code = f"""
from pathlib import Path
from dreamloom.base.images.pixels import decode, read_header
assert decode(Path({str(tmp_path)!r}, "exif.jpg")).size == (56, 40)
assert read_header(Path({str(tmp_path)!r}, "big.png")).width == 12_000
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
