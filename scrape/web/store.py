"""Stores downloaded images: the original bytes where every program shows them right, else encoded once."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageColor

from dreamloom.base.files.atomic import commit
from dreamloom.base.images.large_images import load_vips
from dreamloom.base.images.metadata import find_refusal, without_private_metadata
from dreamloom.base.images.missing_end import NOTE as MISSING_END
from dreamloom.base.images.missing_end import with_end
from dreamloom.base.images.pixels import ImageError, ImageHeader, check_whole, decode, read_header
from dreamloom.scrape.collection import Row, Status
from dreamloom.scrape.collection.records import STORED_SUFFIXES, image_columns
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.optout import join_consent
from dreamloom.scrape.web.outcome import RowDropped, make_row, unforeseen_errors_cost_one_row

_TRACKING_PIXEL_SIDE = 2
"""Longer side, in pixels, of images that count visits and show nothing."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is written to disk."""

    data: bytes
    suffix: str
    """Of the file name: .jpg, .png or .webp."""
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    original_size: tuple[int, int]
    pixels_sha256: str | None
    """Hash of size and pixels before encoding; None unless the config asks for it."""


def store_image(
    folder: Path,
    candidate: Row,
    body: bytes,
    consent: str | None,
    config: ScrapeConfig,
    is_copy: Callable[[str], bool],
) -> Row:
    """Stores a candidate's downloaded image.

    Args:
        folder: images/<part> of a collection.
        candidate: its row of the candidates.
        body: the downloaded bytes.
        consent: what the host said about use.
        config: how images are checked and stored.
        is_copy: whether an earlier candidate's image has this sha256.

    Returns:
        The candidate's row of the records.
    """
    sha256 = hashlib.sha256(body).hexdigest()
    columns: Row = {"sha256": sha256, "consent": consent}
    try:
        with unforeseen_errors_cost_one_row(candidate["url"]):
            if refusal := find_refusal(body):
                columns["consent"] = join_consent(consent, refusal)
            if config.verify_hash:
                _check_hash(candidate, body, sha256)
            if is_copy(sha256):
                raise RowDropped(Status.DUPLICATE)
            if config.respect_optout and refusal:
                raise RowDropped(Status.OPTED_OUT, refusal)
            image, columns["detail"] = _encode_or_mend(body, config)
    except RowDropped as dropped:
        return make_row(candidate, columns, dropped)
    path = folder / f"{candidate['key']}{image.suffix}"
    with commit(path, sync=False) as temporary:
        temporary.write_bytes(image.data)
    columns |= image_columns(path, image.size, image.original_size, len(image.data), sha256)
    return make_row(candidate, {**columns, "pixels_sha256": image.pixels_sha256})


def _check_hash(candidate: Row, body: bytes, sha256: str) -> None:
    """Raises RowDropped if the index has a hash of other bytes.

    A URL whose owner has changed returns other bytes: by buying lapsed domains of an index, anybody can put images into
    whatever is trained on it (Carlini et al. 2023, arXiv 2302.10149).
    """
    for name, known_hash in (("sha256", sha256), ("md5", None)):
        expected = (candidate[name] or "").strip().lower()
        if expected:
            if expected != (known_hash or hashlib.md5(body, usedforsecurity=False).hexdigest()):
                raise RowDropped(Status.HASH_MISMATCH, f"its {name} is not that of the index")
            return


def _encode_or_mend(body: bytes, config: ScrapeConfig) -> tuple[EncodedImage, str | None]:
    """Encodes an image, also one that lacks only its end, if the config says so; and says which it was."""
    try:
        return encode_image(body, config), None
    except RowDropped as dropped:
        mends = config.accept_missing_end and dropped.status is Status.TRUNCATED
        whole = with_end(body) if mends else None
        if whole is None:
            raise
        return encode_image(whole, config), MISSING_END


def encode_image(body: bytes, config: ScrapeConfig) -> EncodedImage:
    """Checks an image and encodes it as it is stored: upright, sRGB, 8 bits, opaque, shrunk. Keeps bytes that are so.

    Raises:
        RowDropped: with any of the statuses of a file.
    """
    try:
        header = read_header(body)
        _check_shape(header, config)
        if header.plain and not _shrunk_size(header, config):
            return _keep_bytes(body, header, config)
        return _encode(body, header, config)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):  # it may be intact, and decoded where there is more memory
            raise RowDropped(Status.TOO_MANY_PIXELS, "more than memory holds just now") from error
        raise RowDropped(Status(error.reason), error.detail) from error


def _check_shape(header: ImageHeader, config: ScrapeConfig) -> None:
    short, long = sorted((header.width, header.height))
    size = f"{header.width} × {header.height}"
    if short * long > config.max_pixels:
        raise RowDropped(Status.TOO_MANY_PIXELS, size)
    if long <= _TRACKING_PIXEL_SIDE:
        raise RowDropped(Status.PLACEHOLDER, f"{size}, a tracking pixel")
    if short < config.min_side:
        raise RowDropped(Status.TOO_SMALL, size)
    if config.max_aspect is not None and long > config.max_aspect * short:
        raise RowDropped(Status.BAD_ASPECT, size)


def _shrunk_size(header: ImageHeader, config: ScrapeConfig) -> tuple[int, int] | None:
    """Returns the size to which an image is shrunk; None where it is small enough."""
    short = min(header.width, header.height)
    if config.shrink_to is None or short <= config.shrink_to:
        return None
    scale = config.shrink_to / short
    return round(header.width * scale), round(header.height * scale)


def _keep_bytes(body: bytes, header: ImageHeader, config: ScrapeConfig) -> EncodedImage:
    if config.hash_pixels:
        pixels_sha256 = _hash_pixels(decode(body, max_pixels=config.max_pixels))
    else:
        pixels_sha256 = None
        check_whole(body, max_pixels=config.max_pixels)
    size = (header.width, header.height)
    data = body if config.keep_exif else without_private_metadata(body)
    return EncodedImage(data, STORED_SUFFIXES[header.format], size, size, pixels_sha256)


def _encode(body: bytes, header: ImageHeader, config: ScrapeConfig) -> EncodedImage:
    red, green, blue = ImageColor.getrgb(config.background_color)[:3]
    size = _shrunk_size(header, config)
    image = decode(
        body,
        max_pixels=config.max_pixels,
        background=(red, green, blue),
        at_least=config.shrink_to if size else None,
        animated=config.animated,
    )
    file = io.BytesIO()
    options = {"quality": config.encode_quality} if config.encode_format != "png" else {}
    try:
        if size:
            image = shrink(image, size)
        image.save(file, config.encode_format, **options)
    except (OSError, ValueError, MemoryError) as error:  # WebP has at most 16,383 pixels a side
        raise RowDropped(Status.UNSUPPORTED, f"can't be stored as {config.encode_format}") from error
    suffix = STORED_SUFFIXES[config.encode_format.upper()]
    pixels_sha256 = _hash_pixels(image) if config.hash_pixels else None
    return EncodedImage(file.getvalue(), suffix, image.size, (header.width, header.height), pixels_sha256)


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes an RGB image to a smaller size (width, height) by Lanczos; libvips takes a third of Pillow's time.

    Raises:
        OSError: libvips fails, or memory does not suffice.
    """
    vips = load_vips()
    try:
        pixels = vips.Image.new_from_memory(image.tobytes(), *image.size, 3, "uchar")
        small = pixels.resize(size[0] / image.width, vscale=size[1] / image.height, kernel="lanczos3")
        return Image.frombuffer("RGB", size, small.write_to_memory(), "raw", "RGB", 0, 1)
    except vips.Error as error:
        raise OSError(str(error)) from error


def _hash_pixels(image: Image.Image) -> str:
    return hashlib.sha256(b"%d x %d " % image.size + image.tobytes()).hexdigest()
