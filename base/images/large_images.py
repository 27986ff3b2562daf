"""Images that are larger than what is decoded whole: libvips shrinks them while it loads them."""

from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from dreamloom.base.images.jpeg import inspect_jpeg
from dreamloom.base.images.pixels import MAX_PIXELS, ImageError, decode, read_header
from dreamloom.base.text import brief

OWN_MAX_PIXELS = 1_000_000_000
"""Most pixels of an image of the user's own, unless the user says otherwise: panoramas have hundreds of megapixels."""


@cache
def load_vips() -> Any:
    """Returns pyvips, without a cache and without threads of its own."""
    import pyvips

    pyvips.cache_set_max(0)  # its cache would hold images that are not needed again
    pyvips.voperation.concurrency_set(1)  # the caller runs threads of its own
    return pyvips


def shrink_on_load(data: bytes, max_pixels: int, pixels: int) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes a large JPEG, PNG, WebP or TIFF to upright 8-bit sRGB of fewer pixels; it is never whole in memory.

    Args:
        data: the whole file.
        max_pixels: maximum pixels of the image, checked in its header.
        pixels: maximum pixels of the result: its sides are halved as often as needed, which libjpeg does as it decodes.

    Returns:
        The RGB image, and the upright width and height that it had.

    Raises:
        ImageError: `too_many_pixels`, also in a format that libvips can't decode; or `truncated`.
    """
    if (data[:2] == b"\xff\xd8" and inspect_jpeg(data)[0] is None) or (
        data[1:4] == b"PNG" and b"IEND" not in data[-16:]
    ):
        raise ImageError("truncated", "it has no end")  # libvips does not look behind the last rows
    vips = load_vips()
    try:
        header = vips.Image.new_from_buffer(data, "", access="sequential")
    except vips.Error as error:
        most = f"more than {pixels:,} pixels, which only JPEG, PNG, TIFF, WebP and GIF may have here"
        raise ImageError("too_many_pixels", most) from error
    width, height = header.width, header.height
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width} × {height}; raise max_pixels")
    turned = header.get_typeof("orientation") and header.get("orientation") >= 5
    halvings = next(n for n in count() if width * height <= pixels * 4**n)
    side = max(1, max(width, height) >> halvings)  # of a square that the image fits into, however it lies
    options = {"height": side, "size": "down", "fail_on": "truncated"}
    if header.get_typeof("icc-profile-data"):  # converting takes ten times as long as the rest
        options["export_profile"] = "srgb"
    try:
        small = vips.Image.thumbnail_buffer(data, side, **options)
        small = small.colourspace("srgb")
        small = small.flatten(background=255) if small.hasalpha() else small
        small = small.cast("uchar")
        image = Image.frombuffer("RGB", (small.width, small.height), small.write_to_memory(), "raw", "RGB", 0, 1)
    except vips.Error as error:
        raise ImageError("truncated", brief(error)) from error
    return image, (height, width) if turned else (width, height)


def decode_or_shrink(source: bytes | Path, at_least: int | None = None) -> Image.Image:
    """Decodes an image of the user's as `pixels.decode` does; a larger one is shrunk as it is loaded.

    Args:
        source: the file's bytes, or its path.
        at_least: see `decode`.

    Raises:
        ImageError: see `decode`; an image of more than OWN_MAX_PIXELS is `too_many_pixels`.
    """
    try:
        return decode(source, at_least=at_least)
    except ImageError as error:
        if error.reason != "too_many_pixels" or not _is_large(source):
            raise
    data = source.read_bytes() if isinstance(source, Path) else source
    return shrink_on_load(data, OWN_MAX_PIXELS, MAX_PIXELS)[0]


def _is_large(source: bytes | Path) -> bool:
    """Whether an image has more than MAX_PIXELS, and not only more scans than it may have."""
    try:
        header = read_header(source)
    except ImageError as error:
        return error.reason == "too_many_pixels"
    return header.width * header.height > MAX_PIXELS
