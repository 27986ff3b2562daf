"""Stores an image of a source: its bytes where every program shows them right, else decoded and encoded again.

Encoded again are images that are rotated by EXIF, have another colour profile, 16 bits, CMYK, transparency or several
frames; and large ones, which are shrunk to what all stages decode. Places and serial numbers in the metadata go.
"""

import hashlib
from pathlib import Path

from PIL import Image

from dreamloom.base.files.atomic import commit, link_or_copy, reflink
from dreamloom.base.files.image_types import OF_PLUGINS, PACKAGES, UNSUPPORTED_EXTENSIONS
from dreamloom.base.images.large_images import shrink_on_load
from dreamloom.base.images.metadata import without_private_metadata
from dreamloom.base.images.pixels import (
    MAX_PIXELS,
    NOT_DECODED,
    ImageError,
    ImageHeader,
    check_whole,
    decode,
    read_header,
)
from dreamloom.scrape.collection import Row
from dreamloom.scrape.collection.records import STORED_SUFFIXES, image_columns
from dreamloom.scrape.datasets.fields import FilesConfig, SourceConfig

_LOSSY = ("JPEG", "MPO", "AVIF", "JPEG2000", "HEIF", "JXL")


def store_image(target: Path, data: bytes, extension: str, original: Path | None, config: SourceConfig) -> Row:
    """Stores an image.

    Args:
        target: where, without the suffix.
        data: the image's bytes.
        extension: of the file that it comes from, in lower case; it tells raw files of cameras from TIFFs.
        original: the file that holds just these bytes; None: there is none.
        config: how it is stored.

    Returns:
        The columns of the records that describe it.

    Raises:
        ImageError: see dreamloom.base.images.pixels.Reason.
    """
    header = read_source_header(data, extension, config.max_pixels)
    if header is None or header.width * header.height > MAX_PIXELS:
        pixels, size = shrink_on_load(data, config.max_pixels, MAX_PIXELS)
        path = _write(target, pixels, lossy=True)  # it is resampled anyway, and a PNG takes a minute
        return _columns(path, data, pixels.size, size)
    size = (header.width, header.height)
    if not header.plain:
        path = _write(target, decode(data), header.format in _LOSSY)
        return _columns(path, data, size, size)
    check_whole(data)
    path = target.with_name(target.name + STORED_SUFFIXES[header.format])
    stored = data if config.keep_exif else without_private_metadata(data)
    if stored is data and original is not None and isinstance(config, FilesConfig) and config.link:
        link_or_copy(original, path)
    else:
        with commit(path, sync=False) as temporary:
            is_shared = stored is data and original is not None and reflink(original, temporary)
            if not is_shared or temporary.read_bytes() != data:  # somebody wrote into the original since it was read
                temporary.write_bytes(stored)
    return _columns(path, data, size, size)


def _write(target: Path, pixels: Image.Image, lossy: bool) -> Path:
    path = target.with_name(target.name + (".jpg" if lossy else ".png"))
    with commit(path, sync=False) as temporary:
        if lossy:
            pixels.save(temporary, "JPEG", quality=95, subsampling=0)
        else:
            pixels.save(temporary, "PNG")
    return path


def _columns(path: Path, data: bytes, size: tuple[int, int], original_size: tuple[int, int]) -> Row:
    return image_columns(path, size, original_size, path.stat().st_size, hashlib.sha256(data).hexdigest())


def read_source_header(data: bytes, extension: str, max_pixels: int) -> ImageHeader | None:
    """Reads an image's header; a file whose extension names a format that is not decoded is "unsupported".

    An image of a decoded format under a wrong name is read nevertheless. A TIFF is not: raw files of cameras are TIFFs
    whose first page is a thumbnail.

    Returns:
        The header; None: the image is too large for Pillow to open, but not for `max_pixels`.

    Raises:
        ImageError: see dreamloom.base.images.pixels.read_header.
    """
    if extension in UNSUPPORTED_EXTENSIONS:
        return _read_unsupported(data, extension)
    try:
        header = read_header(data)
    except ImageError as error:
        if error.reason == "too_many_pixels" and max_pixels > MAX_PIXELS:
            return None
        raise
    if header.width * header.height > max_pixels:
        raise ImageError("too_many_pixels", f"{header.width} × {header.height}; raise max_pixels")
    return header


def _read_unsupported(data: bytes, extension: str) -> ImageHeader:
    extra = next((f"; pip install {PACKAGES[name]}" for name, own in OF_PLUGINS.items() if extension in own), "")
    unsupported = ImageError("unsupported", f"{NOT_DECODED}{extra}")
    try:
        header = read_header(data)
    except ImageError as error:
        raise error if error.reason == "empty" else unsupported from error
    if header.format == "TIFF":
        raise unsupported
    return header
