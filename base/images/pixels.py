"""Decodes image files to upright 8-bit sRGB, with one exception for all ways in which that fails.

Pillow alone turns 16-bit images white, shows what lies under transparent pixels, ignores EXIF and ICC, and accepts
truncated files until they are used. All stages decode images here, where each of these is handled.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

from dreamloom.base.images.colors import alpha_channel, flatten, foreign_profile
from dreamloom.base.images.exif import BROKEN, orientation_of, turn, turns_itself, upright_exif
from dreamloom.base.images.formats import HEADER_BYTES, decoded_formats, known_format, looks_like_tga, tiff_pixels
from dreamloom.base.images.jpeg import inspect_jpeg
from dreamloom.base.images.line_ends import DETAIL, has_converted_header, has_converted_line_ends
from dreamloom.base.text import brief

MAX_PIXELS = 89_478_485
"""Pillow's own limit, and that of LAION's scraper: 256 MiB of RGB pixels."""

Reason = Literal["empty", "not_an_image", "unsupported", "truncated", "too_many_pixels", "animated", "missing_file"]

# ImageError says what Pillow warns of. Set for the whole process, as catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(Exception):
    """Bytes that can't be decoded as an image. `reason` is a status of the records, `detail` a line for people."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The properties of an image that are known before its pixels are decoded."""

    format: str
    """Pillow's name: "JPEG", "PNG", …; "MPO" for a JPEG that is followed by others."""
    width: int
    """Pixels of the upright image, as is `height`."""
    height: int
    orientation: int
    """EXIF's orientation, 1 to 8; 1 is upright."""
    animated: bool
    """Whether it has more than one frame or page."""
    plain: bool
    """Whether every program shows the bytes as `decode` does: an upright, opaque JPEG, PNG or WebP of one frame, with
    8 bits per channel, RGB or gray, in sRGB."""
    transparent: bool
    """Whether it has an alpha channel, or a transparent color."""


def read_header(source: bytes | Path) -> ImageHeader:
    """Reads an image's header without decoding a pixel.

    Raises:
        ImageError: the file is empty, missing, no image, or of an unsupported format.
    """
    with _open(source) as image:
        try:
            orientation, animated = orientation_of(image), _animated(image)
            width, height = image.size[::-1] if orientation >= 5 and not turns_itself(image) else image.size
        except BROKEN as error:
            raise _failure(error) from error
        plain = orientation == 1 and not animated and _is_plain(image)
        transparent = image.has_transparency_data
        return ImageHeader(image.format or "", width, height, orientation, animated, plain, transparent)


def decode(
    source: bytes | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] | None = (255, 255, 255),
    at_least: int | None = None,
    animated: Literal["first", "reject"] = "first",
) -> Image.Image:
    """Decodes an image to upright 8-bit sRGB, mode "RGB".

    Args:
        source: the file's bytes, or its path.
        max_pixels: maximum pixels of an image, checked in its header before it is decoded.
        background: the RGB color under transparent pixels; None: a transparent image stays so, mode "RGBA".
        at_least: decode a JPEG at the smallest of libjpeg's scales (1/2, 1/4, 1/8) whose shorter side has at least
            this many pixels, which is several times faster where the image is shrunk anyway.
        animated: what to do with several frames: take the first, or reject the image.

    Raises:
        ImageError: the image can't be decoded, or is rejected; see Reason.
    """
    return _decode(source, max_pixels, at_least, animated, lambda image: flatten(image, background))


def decode_alpha(source: bytes | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image's alpha channel, upright, mode "L": 255 is opaque. Of several frames, the first is taken.

    Raises:
        ImageError: the image can't be decoded; see Reason.
    """
    return _decode(source, max_pixels, None, "first", alpha_channel)


def read_exif(source: bytes | Path) -> bytes:
    """Reads an image's EXIF for what `decode` makes of it: upright, and without a thumbnail; empty: it has none.

    Raises:
        ImageError: see `read_header`.
    """
    with _open(source) as image:
        return upright_exif(image)


def check_whole(source: bytes | Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Checks that an image is whole, as cheaply as possible: of a JPEG with its markers in order, a part is decoded.

    Raises:
        ImageError: the image is not whole, or can't be decoded; see Reason.
    """
    beginning, scans = inspect_jpeg(source) if isinstance(source, bytes) else (None, 1)
    checked = beginning or source
    with _open(checked) as image:
        _check_pixels(image, scans, max_pixels)
        try:
            if image.format in ("JPEG", "MPO"):
                image.draft("L", (1, 1))
            image.load()
        except BROKEN as error:
            raise _failure(error) from error
        _check_end(image, checked)
        _check_line_ends(image, source)


# Opening


def _decode(
    source: bytes | Path,
    max_pixels: int,
    at_least: int | None,
    animated: Literal["first", "reject"],
    convert: Callable[[Image.Image], Image.Image],
) -> Image.Image:
    """Decodes an image as `decode` says, converts its pixels, and turns it upright."""
    scans = inspect_jpeg(source)[1] if isinstance(source, bytes) else 1
    with _open(source) as image:
        _check_pixels(image, scans, max_pixels)
        try:
            if animated == "reject" and _animated(image):
                raise ImageError("animated", "more than one frame")
            orientation = 1 if turns_itself(image) else orientation_of(image)
            if at_least is not None and image.format in ("JPEG", "MPO") and min(image.size) > at_least:
                scale = min(image.size) / at_least
                image.draft(None, (int(image.width / scale), int(image.height / scale)))
            image.load()
        except BROKEN as error:
            raise _failure(error) from error
        _check_end(image, source)
        _check_line_ends(image, source)
        try:
            return turn(convert(image), orientation)
        except BROKEN as error:
            raise ImageError("unsupported", _line(error)) from error


def _open(source: bytes | Path) -> Image.Image:
    if isinstance(source, Path) and not source.is_file():
        raise ImageError("missing_file", str(source))
    if (isinstance(source, bytes) and not source) or (isinstance(source, Path) and source.stat().st_size == 0):
        raise ImageError("empty")
    try:
        return _open_as(source, decoded_formats())
    except UnidentifiedImageError:
        return _open_unmarked(source)


def _open_as(source: bytes | Path, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except UnidentifiedImageError:
        raise
    except BROKEN as error:
        raise _failure(error) from error


def _open_unmarked(source: bytes | Path) -> Image.Image:
    """Opens a TGA, which has no mark by which it is known."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        beginning = stream.read(HEADER_BYTES)
    if has_converted_header(beginning):
        raise ImageError("truncated", DETAIL)
    if reason := known_format(beginning):
        raise _refusal(source, beginning) if reason == "truncated" else ImageError(reason, NOT_DECODED)
    if looks_like_tga(beginning, size):
        return _open_as(source, ("TGA",))
    raise ImageError("not_an_image", "no known picture format")  # a value of tables, so its words stay


NOT_DECODED = "a format that is not decoded here"


def _refusal(source: bytes | Path, beginning: bytes) -> ImageError:
    """Returns why Pillow opens no file of a format that it knows: its pixels are of another kind, or it is broken."""
    for name in decoded_formats():
        factory, accept = Image.OPEN[name]
        if accept and accept(beginning) is True:
            try:
                with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
                    factory(stream, "").close()
            except BROKEN as error:
                pixels = tiff_pixels(source) if name == "TIFF" else _line(error)
                if pixels and _OTHER_KIND.match(_line(error)):
                    return ImageError("unsupported", f"{NOT_DECODED}: {pixels}; save it with 8 bits a channel")
    return ImageError("truncated", "its header is broken")


_OTHER_KIND = re.compile("unknown pixel mode|unknown data organization|unsupported|cannot handle", re.IGNORECASE)
"""How Pillow's words begin where a whole file has pixels that it does not decode."""


def _check_pixels(image: Image.Image, scans: int, max_pixels: int) -> None:
    """Bounds the decoder's work.

    A scan of a JPEG takes 100 bytes and costs a pass over all pixels, so a small file could keep a core busy for hours.
    """
    pixels, size = image.width * image.height, f"{image.width} × {image.height}"
    if any(tile[0] == "ppm_plain" for tile in getattr(image, "tile", [])):
        scans = _PLAIN_PASSES
    if pixels > max_pixels:
        raise ImageError("too_many_pixels", size)
    if scans * pixels > _PASSES * max_pixels:
        raise ImageError("too_many_pixels", f"{scans} times {size}")


_PASSES = 16
"""Maximum passes over as many pixels as an image may have; progressive JPEGs have about 10 scans."""
_PLAIN_PASSES = 512
"""What the decoder of PPMs written in digits costs, in passes: it is Python."""


def _check_end(image: Image.Image, source: bytes | Path) -> None:
    """Rejects a PNG without its last chunk, as libpng does. Pillow accepts it once all pixels are there."""
    if image.format == "PNG":
        data = source if isinstance(source, bytes) else source.read_bytes()
        if b"IEND\xaeB`\x82" not in data:
            raise ImageError("truncated", "it has no end")


def _check_line_ends(image: Image.Image, source: bytes | Path) -> None:
    """Rejects a JPEG or WebP that was copied as text, whose damage no decoder tells."""
    if image.format in ("JPEG", "MPO", "WEBP") and has_converted_line_ends(source):
        raise ImageError("truncated", DETAIL)


def _animated(image: Image.Image) -> bool:
    """Whether there is a second frame, whole or broken.

    Counting all of them would let a small hostile file keep a core busy for minutes.
    """
    if image.format == "MPO":  # the further images are a depth map, or the other eye's view
        return False
    try:
        if image.format != "TIFF":
            return bool(getattr(image, "is_animated", False))
        image.seek(1)
        image.seek(0)
    except EOFError:
        return False
    except BROKEN:
        return True
    return True


def _is_plain(image: Image.Image) -> bool:
    if image.format not in ("JPEG", "PNG", "WEBP") or image.mode not in ("RGB", "L") or image.has_transparency_data:
        return False
    # Pillow says RGB of a 16-bit PNG too; only the format of the raw pixels tells
    deep = image.format == "PNG" and any(tile[3] not in ("RGB", "L") for tile in getattr(image, "tile", []))
    return not deep and foreign_profile(image) is None


def _failure(error: BaseException) -> ImageError:
    """Returns what an error of Pillow's says of the bytes. Images inside an image (of an ICO) are bounded by Pillow."""
    line = _line(error)
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too_many_pixels", line)
    return ImageError("unsupported" if _OTHER_KIND.match(line) else "truncated", line)


def _line(error: BaseException) -> str:
    return brief(error) or type(error).__name__
