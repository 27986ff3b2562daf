"""Fetched bytes → the image that is stored: as they came where any program shows them right, else made so once."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageColor

from dreamloom.base.files import commit
from dreamloom.base.pixels import ImageError, ImageHeader, check_whole, decode, read_header
from dreamloom.scrape.collection import Row, Status
from dreamloom.scrape.web.dedup import row_of
from dreamloom.scrape.web.optout import refusal_inside
from dreamloom.scrape.web.outcome import Dropped

if TYPE_CHECKING:
    from dreamloom.scrape.web.config import ScrapeConfig

_PIXEL = 2
"""The longer side of what is there to be counted, not to be seen."""

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Picture:
    """An image as it is stored."""

    data: bytes
    extension: str
    """jpg, png or webp."""
    width: int
    """Pixels, upright."""
    height: int
    original_width: int
    original_height: int
    pixels_sha256: str | None
    """Of its size and pixels before they are encoded; None where that is not wanted."""


def store_picture(
    folder: Path,
    candidate: Row,
    body: bytes,
    consent: str | None,
    config: "ScrapeConfig",
    is_copy: Callable[[str], bool],
) -> Row:
    """Stores a candidate's image as it was fetched.

    Args:
        folder: images/<part> of a collection.
        is_copy: whether an earlier candidate's image has this sha256.

    Returns:
        Its row of the records.
    """
    found: Row = {"sha256": hashlib.sha256(body).hexdigest(), "consent": consent}
    try:
        if config.verify_hash:
            _check_hash(candidate, body, found["sha256"])
        if is_copy(found["sha256"]):
            raise Dropped(Status.DUPLICATE)
        if config.respect_optout and (says := refusal_inside(body)):
            raise Dropped(Status.OPTED_OUT, says, consent=f"{consent}; {says}" if consent else says)
        picture = make_picture(body, config)
    except Dropped as dropped:
        return row_of(candidate, found, dropped)
    path = folder / f"{candidate['key']}.{picture.extension}"
    with commit(path, sync=False) as temporary:
        temporary.write_bytes(picture.data)
    found |= {
        "image": f"images/{folder.name}/{path.name}",
        "width": picture.width,
        "height": picture.height,
        "original_width": picture.original_width,
        "original_height": picture.original_height,
        "bytes": len(picture.data),
        "pixels_sha256": picture.pixels_sha256,
    }
    return row_of(candidate, found)


def _check_hash(candidate: Row, body: bytes, sha256: str) -> None:
    """Whether these are the bytes that the index saw, where it says.

    An address whose owner has changed gives others: by buying the lapsed domains of an index, anybody can put images
    into whatever is trained on it (Carlini et al. 2023, arXiv 2302.10149).
    """
    for name, here in (("sha256", sha256), ("md5", None)):
        said = (candidate[name] or "").strip().lower()
        if said:
            if said != (here or hashlib.md5(body, usedforsecurity=False).hexdigest()):
                raise Dropped(Status.HASH_MISMATCH, f"its {name} is not that of the index")
            return


def make_picture(body: bytes, config: "ScrapeConfig") -> Picture:
    """Checks, decodes, turns, shrinks and encodes an image, or keeps its bytes where none of that is needed.

    Raises:
        Dropped: with any of the statuses of a file.
    """
    try:
        header = read_header(body)
        _check_shape(header, config)
        if header.plain and not _shrunk(header, config):
            pixels = _hash(decode(body, max_pixels=config.max_pixels)) if config.hash_pixels else None
            if pixels is None:
                check_whole(body, max_pixels=config.max_pixels)
            size = (header.width, header.height)
            return Picture(body, _EXTENSIONS[header.format], *size, *size, pixels)
        return _made_anew(body, header, config)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):  # it may be whole, and go where there is more
            raise Dropped(Status.TOO_MANY_PIXELS, "more than memory holds just now") from error
        raise Dropped(Status(error.reason), error.detail) from error


def _check_shape(header: ImageHeader, config: "ScrapeConfig") -> None:
    short, long = sorted((header.width, header.height))
    size = f"{header.width} × {header.height}"
    if short * long > config.max_pixels:
        raise Dropped(Status.TOO_MANY_PIXELS, size)
    if long <= _PIXEL:
        raise Dropped(Status.PLACEHOLDER, f"{size}, a tracking pixel")
    if short < config.min_side:
        raise Dropped(Status.TOO_SMALL, size)
    if config.max_aspect is not None and long > config.max_aspect * short:
        raise Dropped(Status.BAD_ASPECT, size)


def _shrunk(header: ImageHeader, config: "ScrapeConfig") -> tuple[int, int] | None:
    """The size to which an image is shrunk; None where it is small enough."""
    short = min(header.width, header.height)
    if config.shrink_to is None or short <= config.shrink_to:
        return None
    scale = config.shrink_to / short
    return round(header.width * scale), round(header.height * scale)


def _made_anew(body: bytes, header: ImageHeader, config: "ScrapeConfig") -> Picture:
    red, green, blue = ImageColor.getrgb(config.background_color)[:3]
    size = _shrunk(header, config)
    image = decode(
        body,
        max_pixels=config.max_pixels,
        background=(red, green, blue),
        at_least=config.shrink_to if size else None,
        animated=config.animated,
    )
    out = io.BytesIO()
    options = {"quality": config.encode_quality} if config.encode_format != "png" else {}
    try:
        if size:
            image = shrink(image, size)
        image.save(out, config.encode_format, **options)
    except (OSError, ValueError, MemoryError) as error:
        raise Dropped(
            Status.UNSUPPORTED, f"can't be stored as {config.encode_format}"
        ) from error  # WebP: 16,383 pixels a side
    extension = _EXTENSIONS[config.encode_format.upper()]
    pixels = _hash(image) if config.hash_pixels else None
    return Picture(out.getvalue(), extension, *image.size, header.width, header.height, pixels)


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB image at a smaller size (width, height), by Lanczos: libvips takes a third of Pillow's time for it.

    Raises:
        OSError: libvips can't; memory does not suffice.
    """
    vips = _vips()
    try:
        pixels = vips.Image.new_from_memory(image.tobytes(), *image.size, 3, "uchar")
        small = pixels.resize(size[0] / image.width, vscale=size[1] / image.height, kernel="lanczos3")
        return Image.frombuffer("RGB", size, small.write_to_memory(), "raw", "RGB", 0, 1)
    except vips.Error as error:
        raise OSError(str(error)) from error


@cache
def _vips() -> Any:
    import pyvips

    pyvips.cache_set_max(0)  # it would hold images that nobody asks for again
    pyvips.voperation.concurrency_set(1)  # the caller has threads of its own
    return pyvips


def _hash(image: Image.Image) -> str:
    return hashlib.sha256(b"%d x %d " % image.size + image.tobytes()).hexdigest()
