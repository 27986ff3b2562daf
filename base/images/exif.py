"""EXIF of images that Pillow has opened: how an image is turned upright, and what else is kept of it."""

import struct
import zlib

from PIL import Image

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged bytes, as far as it was seen."""


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation in EXIF or XMP; decodes no pixel, as a PNG's own getexif does to read beyond them."""
    try:
        value = Image.Image.getexif(image).get(0x0112, 1)
    except BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_exif(image: Image.Image) -> bytes:
    """Returns the EXIF of an image for its upright pixels, without a thumbnail; empty: it has none, or a broken one."""
    try:
        exif = Image.Image.getexif(image)
        for tag in _OF_PIXELS & exif.keys():
            del exif[tag]
        return exif.tobytes() if len(exif) else b""
    except BROKEN:
        return b""


_OF_PIXELS = {0x0112, *range(0x00FE, 0x0107), *(0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x013D, 0x0140, 0x014A)} | {
    *range(0x0142, 0x0146),
    *(0x0152, 0x0153, 0x015B, 0x0201, 0x0202, 0x02BC, 0x83BB, 0x8649, 0x8773),
}
"""Tags that say how a file holds its pixels (TIFF 6.0), its orientation among them, and other blocks of metadata."""


def turns_itself(image: Image.Image) -> bool:
    """Tells whether Pillow turns the image itself as it loads it, and gives the upright size: so with TIFF."""
    return image.format == "TIFF"


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image of an orientation upright."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
