"""Bytes that a scraper must survive: images in every form that misleads a decoder, and what is no image at all."""

import gzip
import io
import itertools
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

WIDTH, HEIGHT = 64, 48


@cache
def scene() -> np.ndarray:
    """An image whose four corners differ: red, green, blue, white; (48, 64, 3) uint8."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32] = (250, 20, 20), (20, 220, 30), (30, 40, 240)
    return pixels


def encoded(pixels: np.ndarray | None = None, name: str = "JPEG", mode: str | None = None, **options: Any) -> bytes:
    """An image in one of Pillow's formats."""
    out = io.BytesIO()
    if name == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    Image.fromarray(scene() if pixels is None else pixels, mode).save(out, name, **options)
    return out.getvalue()


_number = itertools.count()


def photo() -> bytes:
    """The scene as a JPEG, in bytes that no other call gives."""
    return with_segment(0xFE, b"number %d" % next(_number))


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}
"""How EXIF's orientations are stored: what the reader has to undo."""


def turned(orientation: int) -> bytes:
    """A JPEG that is the scene once its EXIF orientation is heeded."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(TURNED[orientation](scene())), exif=exif)


def animation(name: str) -> bytes:
    """Two frames."""
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    out = io.BytesIO()
    frames[0].save(out, name, save_all=True, append_images=frames[1:], duration=100)
    return out.getvalue()


def deep_png() -> bytes:
    """16 bits a channel, of which Pillow can read and not write."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in scene())
    return png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0), zlib.compress(rows))


def deep_grey_png() -> bytes:
    """16 bits of grey from black to a third."""
    rows = np.tile(np.linspace(0, 21845, WIDTH).astype(">u2"), (HEIGHT, 1))
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 0, 0, 0, 0), zlib.compress(body))


def palette_png() -> bytes:
    """A palette whose last colour is clear."""
    indexed = Image.fromarray(scene()).quantize(4)
    white = indexed.getpixel((WIDTH - 1, HEIGHT - 1))
    out = io.BytesIO()
    indexed.save(out, "PNG", transparency=white)
    return out.getvalue()


def png(header: bytes, pixels: bytes, more: bytes = b"") -> bytes:
    """A PNG by its chunks' content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    end = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"zTXt", more) if more else b"") + end


def text_bomb() -> bytes:
    """A PNG whose comment inflates to 100 MB."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
    rows = b"".join(b"\0" + row.tobytes() for row in scene())
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return png(header, zlib.compress(rows), b"Comment\0\0" + bomb)


def bombs() -> dict[str, bytes]:
    """Small files of very many pixels, and headers that promise them."""
    jpeg = bytearray(encoded())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    gif = bytearray(encoded(name="GIF"))
    gif[6:10] = struct.pack("<HH", 60000, 60000)
    webp = bytearray(encoded(name="WEBP"))
    webp[26:30] = struct.pack("<HH", 16_383, 16_383)
    square = png(struct.pack(">IIBBBBB", 12_000, 12_000, 1, 0, 0, 0, 0), zlib.compress(bytes(1501 * 12_000), 9))
    return {"PNG": square, "JPEG": bytes(jpeg), "GIF": bytes(gif), "WebP": bytes(webp)}


@cache
def scan_bomb() -> bytes:
    """A JPEG of 16 megapixels whose last scan is repeated five hundred times, in 100 kB."""
    whole = encoded(np.full((4000, 4000), 128, np.uint8), progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + 500 * last + whole[-2:]


def with_segment(marker: int, content: bytes) -> bytes:
    """A JPEG with a segment of its own after its first two bytes."""
    whole = encoded()
    return whole[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + whole[2:]


def reserved_by_c2pa() -> bytes:
    """A JPEG whose C2PA manifest, unsigned, forbids training."""
    key = b"c2pa.ai_generative_training"
    content = b"JP\0\1\0\0\0\1\0\0\1\0jumb" + b"\0\0\0\x2ajumdc2pa\0c2pa.training-mining\0\0\0\0\xc0cbor"
    content += b"\xa1gentries\xa1" + b"\x78" + bytes([len(key)]) + key + b"\xa1cuse\x6anotAllowed"
    return with_segment(0xEB, content)


def reserved_by_iptc() -> bytes:
    """A JPEG whose XMP says plus:DataMining."""
    refusal = b"http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"
    xmp = b'<rdf:Description xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" plus:DataMining="%s"/>' % refusal
    return with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)


def swapped_profile() -> bytes:
    """An ICC profile: sRGB with red and green changed over."""
    return rgb_profile("swapped", (0.3851, 0.7169, 0.0971), (0.4361, 0.2225, 0.0139), (0.1431, 0.0606, 0.7141))


def rgb_profile(description: str, *primaries: tuple[float, float, float]) -> bytes:
    """An ICC profile by the book (ICC.1:2001-04), with a gamma of 2.2.

    Args:
        description: its name for people.
        primaries: CIE XYZ of red, green and blue, for the white of D50.
    """

    def fixed(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    tags = {
        **{colour: fixed(*xyz) for colour, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)},
        b"wtpt": fixed(0.9642, 1.0, 0.8249),
        b"rTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(description) + 1) + description.encode() + bytes(79),
        b"cprt": b"text\0\0\0\0none\0",
    }
    table, body, place = b"", b"", 128 + 4 + 12 * (len(tags) + 2)
    for name, value in tags.items():
        names = (b"rTRC", b"gTRC", b"bTRC") if name == b"rTRC" else (name,)
        table += b"".join(n + struct.pack(">II", place + len(body), len(value)) for n in names)
        body += value + bytes(-len(value) % 4)
    count = struct.pack(">I", len(tags) + 2)
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + count + table + body


def long_png_text() -> PngImagePlugin.PngInfo:
    """A comment of a megabyte, which is much and no bomb."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 2**20)
    return info


@cache
def gzip_bomb() -> bytes:
    """256 MB in 250 kB."""
    packer = zlib.compressobj(9, wbits=31)  # 31: gzip
    return b"".join([packer.compress(bytes(2**20)) for _ in range(256)]) + packer.flush()


def gzipped(body: bytes) -> bytes:
    """As a server packs it."""
    return gzip.compress(body, mtime=0)
