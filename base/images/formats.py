"""The formats of image files, by their first bytes: which are decoded, and what is known of the others."""

import io
import struct
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from PIL import TiffImagePlugin

from dreamloom.base.files.image_types import PLUGINS
from dreamloom.base.images.exif import BROKEN

HEADER_BYTES = 18
"""First bytes by which formats are told apart."""


@cache
def decoded_formats() -> tuple[str, ...]:
    """Returns Pillow's names of the formats that are decoded, those of installed plugins among them."""
    extra = {"heic": ("register_heif_opener", "HEIF"), "jxl": ("", "JXL")}
    formats = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"]
    for name, module in PLUGINS.items():
        if find_spec(module):
            register, format_name = extra[name]
            getattr(import_module(module), register, lambda: None)()
            formats.append(format_name)
    return tuple(formats)


_DECODED: Final = "truncated"
_FOREIGN: Final = "unsupported"
_STARTS: dict[bytes, Literal["truncated", "unsupported"]] = {
    b"\xff\xd8\xff": _DECODED,  # this and the next ones are decoded, but Pillow rejected the file
    b"\x89PNG\r\n\x1a\n": _DECODED,
    b"RIFF....WEBP": _DECODED,
    b"GIF8": _DECODED,
    b"II*\0": _DECODED,
    b"MM\0*": _DECODED,
    b"II+\0": _DECODED,  # TIFFs of more than 4 GB, or that may become so
    b"MM\0+": _DECODED,
    b"BM....\0\0\0\0": _DECODED,  # BMP
    b"....ftypavi": _DECODED,
    b"\0\0\0\x0cjP  ": _DECODED,
    b"\xff\x4f\xff\x51": _DECODED,  # a JPEG 2000 codestream
    b"\0\0\x01\0": _DECODED,  # ICO
    b"....ftyp": _FOREIGN,  # HEIC, CR3, and videos
    b"\xff\x0a": _FOREIGN,  # JPEG XL
    b"\0\0\0\x0cJXL ": _FOREIGN,
    b"II\xbc\x01": _FOREIGN,  # JPEG XR
    b"IIRO": _FOREIGN,  # raw files of Olympus, Panasonic and Fujifilm
    b"IIU\0": _FOREIGN,
    b"FUJIFILMCCD-RAW": _FOREIGN,
    b"8BPS": _FOREIGN,  # Photoshop
    b"gimp xcf": _FOREIGN,
    b"v/1\x01": _FOREIGN,  # OpenEXR
    b"qoif": _FOREIGN,
    b"DDS ": _FOREIGN,
    b"\x1aE\xdf\xa3": _FOREIGN,  # WebM
}
"""First bytes of files, in which a full stop stands for any byte → the reason why Pillow does not open them."""


def known_format(beginning: bytes) -> Literal["truncated", "unsupported"] | None:
    """Returns why Pillow does not open a file of a known format, by its first bytes; None: no format is known."""
    for start, reason in _STARTS.items():
        if len(beginning) >= len(start) and all(a in (b, ord(".")) for a, b in zip(start, beginning, strict=False)):
            return reason
    return None


def begins_like_an_image(path: Path) -> bool:
    """Tells whether a file without a known extension is an image, by its first bytes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            beginning = stream.read(HEADER_BYTES)
    except OSError:
        return False
    return known_format(beginning) is not None and not _is_video(beginning)


def _is_video(beginning: bytes) -> bool:
    pictures = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ")
    is_movie = beginning[4:8] == b"ftyp" and beginning[8:12] not in pictures
    return is_movie or beginning[:4] == b"\x1aE\xdf\xa3"


def tiff_pixels(source: bytes | Path) -> str | None:
    """Says of what kind the pixels of a TIFF are: "a TIFF of 3 × 32 bits, floating point"; None: it is not whole."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        beginning = stream.read(16)
        try:
            tags = TiffImagePlugin.ImageFileDirectory_v2(beginning if beginning[2:3] == b"+" else beginning[:8])
            stream.seek(tags.next)
            tags.load(stream)
            places, sizes = (tags.get(strip, tags.get(tile, ())) for strip, tile in ((273, 324), (279, 325)))
            if not places or max(map(sum, zip(places, sizes, strict=True))) > stream.seek(0, io.SEEK_END):
                return None
            channels, bits = tags.get(277, 1), tags.get(258, (1,))[0]
            kinds = {2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
            kind = kinds.get(tags.get(339, (1,))[0]) or _COLORS.get(tags.get(262, 0))
        except BROKEN:
            return None
    return f"a TIFF of {channels} × {bits} bits" + (f", {kind}" if kind else "")


_COLORS = {5: "CMYK", 8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogL", 32845: "LogLuv"}
"""PhotometricInterpretation → its name, of colors that programs of photos write."""


def looks_like_tga(beginning: bytes, size: int) -> bool:
    """Tells whether a file may be a TGA, which has no mark at its beginning.

    Its header must make sense, and it must be long enough for its pixels. Truevision TGA File Format Specification 2.0.

    Args:
        beginning: the first HEADER_BYTES bytes.
        size: bytes of the whole file.
    """
    if len(beginning) < HEADER_BYTES:
        return False
    id_bytes, map_type, kind, _, entries, entry_bits, _, _, width, height, bits, _ = struct.unpack(
        "<BBBHHBHHHHBB", beginning
    )
    if kind not in _TGA_BITS or bits not in _TGA_BITS[kind] or not width or not height:
        return False
    if (kind in (1, 9)) != (map_type == 1) or (map_type == 1) != (entries > 0):
        return False
    pixels, longest_run = width * height, 128
    packed = (pixels + longest_run - 1) // longest_run * (1 + bits // 8) if kind >= 9 else pixels * (bits // 8)
    return bool(size >= HEADER_BYTES + int(id_bytes) + int(entries) * int(entry_bits) // 8 + packed)


_TGA_BITS = {kind: bits for kinds, bits in (((1, 9), (8,)), ((2, 10), (16, 24, 32)), ((3, 11), (8,))) for kind in kinds}
"""Kind of image (paletted, color, gray; from 9 on packed) → bits of a pixel."""
