"""Fetched bytes → the picture that is stored: as they came where any program shows them right, else made so once."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageColor

from base.pixels import Header, PictureError, check_whole, decode, read_header
from scrape.collection import Status
from scrape.dropped import Dropped

if TYPE_CHECKING:
    from scrape.download import ScrapeConfig

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored."""

    data: bytes
    extension: str
    """jpg, png or webp."""
    width: int
    """Pixels, upright."""
    height: int
    original_width: int
    original_height: int


def make_picture(body: bytes, config: "ScrapeConfig") -> Picture:
    """Checks, decodes, turns, shrinks and encodes a picture, or keeps its bytes where none of that is needed.

    Raises:
        Dropped: with any of the statuses of a file.
    """
    try:
        header = read_header(body)
        _check_shape(header, config)
        if header.plain and not _shrunk(header, config):
            check_whole(body, max_pixels=config.max_pixels)
            size = (header.width, header.height)
            return Picture(body, _EXTENSIONS[header.format], *size, *size)
        return _made_anew(body, header, config)
    except PictureError as error:
        raise Dropped(Status(error.reason), error.detail) from error


def _check_shape(header: Header, config: "ScrapeConfig") -> None:
    short, long = sorted((header.width, header.height))
    size = f"{header.width} × {header.height}"
    if short * long > config.max_pixels:
        raise Dropped(Status.TOO_MANY_PIXELS, size)
    if short < config.min_side:
        raise Dropped(Status.TOO_SMALL, size)
    if config.max_aspect is not None and long > config.max_aspect * short:
        raise Dropped(Status.BAD_ASPECT, size)


def _shrunk(header: Header, config: "ScrapeConfig") -> tuple[int, int] | None:
    """The size to which a picture is shrunk; None where it is small enough."""
    short = min(header.width, header.height)
    if config.shrink_to is None or short <= config.shrink_to:
        return None
    scale = config.shrink_to / short
    return round(header.width * scale), round(header.height * scale)


def _made_anew(body: bytes, header: Header, config: "ScrapeConfig") -> Picture:
    red, green, blue = ImageColor.getrgb(config.background)[:3]
    size = _shrunk(header, config)
    image = decode(
        body,
        max_pixels=config.max_pixels,
        background=(red, green, blue),
        at_least=config.shrink_to if size else None,
        animated=config.animated,
    )
    out = io.BytesIO()
    options = {"quality": config.quality} if config.format != "png" else {}
    try:
        if size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        image.save(out, config.format, **options)
    except (OSError, ValueError, MemoryError) as error:
        raise Dropped(
            Status.UNSUPPORTED, f"can't be stored as {config.format}"
        ) from error  # WebP: 16,383 pixels a side
    extension = _EXTENSIONS[config.format.upper()]
    return Picture(out.getvalue(), extension, *image.size, header.width, header.height)
