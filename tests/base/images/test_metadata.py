"""Places and serial numbers go, byte for byte; everything else of an image stays."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from dreamloom.base.images.metadata import find_refusal, without_private_metadata

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description exif:GPSLatitude="48,51.5N" dc:rights="mine"'
    b' plus:DataMining="DMI-PROHIBITED"><aux:SerialNumber>SN-77</aux:SerialNumber></rdf:Description>'
    b"</rdf:RDF></x:xmpmeta>"
)


def exif() -> Image.Exif:
    values = Image.Exif()
    values[ExifTags.Base.Copyright] = "Ann, all rights reserved"
    values[ExifTags.Base.Model] = "Camera 9"
    values.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.BodySerialNumber: "SN-123456", ExifTags.Base.MakerNote: b"SN-MAKER", ExifTags.Base.FNumber: 2.8}
    )
    values.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 51.0, 30.25), 3: "E", 4: (2.0, 17.0, 40.2)})
    return values


def saved(format_name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    PIXELS.save(stream, format_name, exif=exif(), **options)
    return stream.getvalue()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_places_and_serial_numbers_are_taken_out_and_the_rest_stays(format_name: str) -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    data = saved(format_name, **({"pnginfo": info} if format_name == "PNG" else {"xmp": XMP}))
    clean = without_private_metadata(data)
    assert len(clean) == len(data) and not any(word in clean for word in (b"SN-", b"48,51"))
    with Image.open(io.BytesIO(clean)) as image, Image.open(io.BytesIO(data)) as before:
        image.load()  # checks a PNG's sums
        assert np.array_equal(np.asarray(image), np.asarray(before))
        left = image.getexif()
    assert left[ExifTags.Base.Copyright] == "Ann, all rights reserved" and left[ExifTags.Base.Model] == "Camera 9"
    assert float(left.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber]) == pytest.approx(2.8)
    gps = left.get_ifd(ExifTags.IFD.GPSInfo)
    assert not any(str(gps.get(tag, "")).strip("\0") for tag in (1, 3))
    assert all(not float(part) or part != part for tag in (2, 4) for part in gps.get(tag, ()))
    assert b'dc:rights="mine"' in clean and find_refusal(clean) == "iptc: DMI-PROHIBITED"
    assert without_private_metadata(clean) == clean


def test_what_follows_the_picture_tells_no_place_either() -> None:
    picture, plain = saved("JPEG"), io.BytesIO()
    PIXELS.save(plain, "JPEG")
    further = without_private_metadata(plain.getvalue() + picture)
    assert len(further) == len(plain.getvalue() + picture) and b"SN-" not in further
    with Image.open(io.BytesIO(further[len(plain.getvalue()) :])) as image:
        assert not str(image.getexif().get_ifd(ExifTags.IFD.GPSInfo).get(1, "")).strip("\0")
    video = struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0) + b"\xa9xyz+48.51+002.17/" + bytes(99)
    for before in (b"", b"MotionPhoto_Data", bytes(64)):
        data = plain.getvalue() + before + video
        clean = without_private_metadata(data)
        assert clean == plain.getvalue() + before
    words = plain.getvalue() + b"no video: ftyp, " + bytes(20)
    assert without_private_metadata(words) is words


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF"])
def test_an_image_that_says_nothing_stays_the_same_object(format_name: str) -> None:
    stream = io.BytesIO()
    PIXELS.save(stream, format_name)
    data = stream.getvalue()
    assert without_private_metadata(data) is data


def test_compressed_and_wide_xmp_is_read_like_any_other() -> None:
    info, stream, wide = PngInfo(), io.BytesIO(), io.BytesIO()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    PIXELS.save(stream, "PNG", pnginfo=info)
    assert find_refusal(stream.getvalue()) == "iptc: DMI-PROHIBITED"
    clean = without_private_metadata(stream.getvalue())
    with Image.open(io.BytesIO(clean)) as image:
        image.load()
        text = image.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]
    assert "48,51" not in text and "SN-77" not in text and 'dc:rights="mine"' in text
    assert find_refusal(clean) == "iptc: DMI-PROHIBITED" and without_private_metadata(clean) == clean
    PIXELS.save(wide, "JPEG", xmp=XMP.decode().encode("utf-16"))
    assert find_refusal(wide.getvalue()) == "iptc: DMI-PROHIBITED"


def test_a_compressed_text_is_unpacked_in_bounds() -> None:
    bomb = zlib.compress(bytes(100_000_000))
    chunk = b"zTXt" + b"XMP\0\0" + bomb
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    tracemalloc.start()
    assert find_refusal(data) is None and without_private_metadata(data) is data
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_exif_in_a_text_of_a_png_is_taken_out() -> None:
    info, stream = PngInfo(), io.BytesIO()
    info.add_text("Raw profile type exif", "\nexif\n 4\n45786966", zip=True)
    info.add_text("Comment", "stays")
    PIXELS.save(stream, "PNG", pnginfo=info)
    with Image.open(io.BytesIO(without_private_metadata(stream.getvalue()))) as image:
        image.load()
        assert image.text == {"Comment": "stays"}  # type: ignore[attr-defined]


@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.data())
def test_any_bytes_are_read_in_bounds(format_name: str, data: st.DataObject) -> None:
    image = bytearray(saved(format_name))
    for _ in range(data.draw(st.integers(1, 12))):
        image[data.draw(st.integers(0, min(400, len(image) - 1)))] = data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(0, len(image)))])
    assert len(without_private_metadata(cut)) <= len(cut)
