"""Images that lack nothing but the mark of their end, as copies that broke off at the last bytes do."""

import struct
from pathlib import Path

from PIL import Image

from dreamloom.base.images.jpeg import SOS, segments
from dreamloom.base.images.large_images import decode_or_shrink
from dreamloom.base.images.pixels import ImageError

NOTE = "its end mark was missing"
"""What the records say of such an image."""
_EOI = b"\xff\xd9"
_TAILS = [bytes(value * step % 251 for value in range(1, 65)) for step in (73, 31, 200)]
"""Bytes that hold no marker, and that decode to other pixels than libjpeg fills in."""
_IEND = b"\0\0\0\0IEND\xaeB`\x82"


def with_end(data: bytes) -> bytes | None:
    """Returns a JPEG or PNG that lacks only its end with that end; None: it has one, lacks more, or is another format.

    A progressive JPEG may lack scans without a trace, so it counts as lacking more.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_with_end(data)
    if data[:2] != b"\xff\xd8" or data.rstrip(b"\0").endswith(b"\xff\xd9") or not _has_one_scan(data):
        return None
    code = data.removesuffix(b"\xff")
    whole = code + _EOI
    try:  # libjpeg fills in what the entropy code lacks; only of a whole code, what is behind it changes nothing
        pixels = decode_or_shrink(whole).tobytes()
        is_whole = all(decode_or_shrink(code + tail + _EOI).tobytes() == pixels for tail in _TAILS)
    except ImageError:
        return None
    return whole if is_whole else None


def _has_one_scan(data: bytes) -> bool:
    """Whether a JPEG is sequential, and its first scan holds all of its components (ITU-T T.81, B.2)."""
    components = 0
    for code, start, _ in segments(data):
        if start + 6 > len(data):
            return False
        if code in (0xC0, 0xC1):
            components = data[start + 5]
        elif code == SOS:
            return 0 < components == data[start]
    return False


def _png_with_end(data: bytes) -> bytes | None:
    """Cuts what is left of the last chunk, if it is the end's, and adds the end."""
    offset = 8
    while offset + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, offset)
        if data[offset + 4 : offset + 8] == b"IEND" or offset + 12 + size > len(data):
            break
        offset += 12 + size
    if not _IEND.startswith(data[offset:]) or data[offset:] == _IEND:
        return None
    whole = data[:offset] + _IEND
    try:
        decode_or_shrink(whole)
    except ImageError:
        return None
    return whole


def decode_own(source: bytes | Path, at_least: int | None = None) -> Image.Image:
    """Decodes an image of the user's as ingest takes it: also a large one, and one that lacks only its end.

    Args:
        source: the file's bytes, or its path.
        at_least: see `dreamloom.base.images.pixels.decode`.

    Raises:
        ImageError: see `dreamloom.base.images.large_images.decode_or_shrink`.
    """
    try:
        return decode_or_shrink(source, at_least)
    except ImageError as error:
        if error.reason != "truncated":
            raise
        whole = with_end(source.read_bytes() if isinstance(source, Path) else source)
        if whole is None:
            raise
        return decode_or_shrink(whole, at_least)
