"""Compresses one image: its bytes, and those of its mask."""

import io
from dataclasses import dataclass

from PIL import Image, PngImagePlugin

from dreamloom.base.images.large_images import shrink_on_load
from dreamloom.base.images.metadata import find_refusal, refusal_xmp
from dreamloom.base.images.missing_end import with_end
from dreamloom.base.images.pixels import MAX_PIXELS, ImageError, decode, read_exif
from dreamloom.caption.compress.config import CompressConfig
from dreamloom.caption.compress.layout import Layout, lay_out, render
from dreamloom.scrape.datasets.store_image import read_source_header

SUFFIXES = {"webp": ".webp", "jpeg": ".jpg", "avif": ".avif", "png": ".png"}
"""Format → suffix of its files."""
_MAX_EXIF_BYTES = 65_000
"""A segment of a JPEG holds no more."""


@dataclass(frozen=True)
class CompressedImage:
    """An image of the new folder."""

    data: bytes
    layout: Layout
    marks: tuple[str, ...]
    """What somebody may want to look at: "animated, first frame", "missing_end"."""


def compress_image(data: bytes, extension: str, config: CompressConfig) -> CompressedImage:
    """Compresses an image: upright, in sRGB, with 8 bits, its first frame.

    Args:
        data: the original's bytes.
        extension: of the original's name, in lower case.

    Raises:
        ImageError: see dreamloom.base.images.pixels.Reason; `unsupported` also where the new format can't hold it.
    """
    try:
        return _compress(data, data, extension, config, ())
    except ImageError as error:
        whole = with_end(data) if error.reason == "truncated" else None
        if whole is None:
            raise
        return _compress(whole, data, extension, config, ("missing_end",))


def compress_mask(data: bytes, layout: Layout) -> bytes | None:
    """Lays a mask out as its image, as a PNG; padding counts nothing.

    Returns:
        None: the mask stays as it is, since the image has its shape still, or the mask never had.

    Raises:
        ImageError: the mask can't be decoded.
    """
    if not layout.changes_shape:
        return None
    mask = decode(data, background=(0, 0, 0)).convert("L")
    width, height = layout.original
    if abs(mask.width * height - mask.height * width) > max(width, height):
        return None
    file = io.BytesIO()
    render(mask, layout, (0, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _compress(
    data: bytes, original: bytes, extension: str, config: CompressConfig, marks: tuple[str, ...]
) -> CompressedImage:
    header = read_source_header(data, extension, config.max_pixels)
    if header is None or header.width * header.height > MAX_PIXELS:
        image, _ = shrink_on_load(data, config.max_pixels, MAX_PIXELS)
        layout = lay_out(image.size, config)
    else:
        layout = lay_out((header.width, header.height), config)
        background = config.background if config.format == "jpeg" else None
        image = decode(data, background=background, at_least=layout.shorter_side)
        marks += ("animated, first frame",) if header.animated else ()
    exif = read_exif(data) if config.keep_exif else b""
    return CompressedImage(_encode(image, layout, config, exif, find_refusal(original)), layout, marks)


def _encode(image: Image.Image, layout: Layout, config: CompressConfig, exif: bytes, refusal: str | None) -> bytes:
    options: dict[str, object] = {}
    if len(exif) in range(1, _MAX_EXIF_BYTES):
        options["exif"] = exif
    if refusal is not None:
        options["xmp"] = refusal_xmp(refusal)
    if config.format == "png":
        options["pnginfo"] = _png_texts(options.pop("xmp", None))
    else:
        options["quality"] = config.quality
    if config.format == "jpeg":
        options["subsampling"] = 0
    file = io.BytesIO()
    try:
        render(image, layout, config.background).save(file, config.format, **options)
    except (OSError, ValueError, MemoryError) as error:  # WebP has at most 16,383 pixels a side
        raise ImageError("unsupported", f"can't be stored as {config.format}") from error
    return file.getvalue()


def _png_texts(xmp: object) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    if isinstance(xmp, bytes):
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode("ascii"))
    return texts
