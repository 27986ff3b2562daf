"""Bytes in, upright sRGB pixels out; and one exception for every way in which that can't be.

Pillow alone turns 16-bit pictures white, shows what lies under transparent pixels, ignores EXIF and ICC, and lets a
truncated file pass until it is used; each of these is settled here, once, for every stage.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Pillow's own limit, and that of LAION's scraper: 256 MiB of RGB pixels."""

Reason = Literal["empty", "not_an_image", "unsupported", "truncated", "too_many_pixels", "animated", "missing_file"]

_SRGB = ImageCms.createProfile("sRGB")
_SUPPORTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")


class PictureError(Exception):
    """Bytes that give no picture. `reason` is a word of the records' status, `detail` a line about it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What a picture's first bytes say, before its pixels are decoded."""

    format: str
    """Pillow's name: "JPEG", "PNG", …"""
    width: int
    """Pixels, once upright."""
    height: int
    orientation: int
    """EXIF's 1 to 8; 1 is upright."""
    frames: int


def read_header(source: bytes | Path) -> Header:
    """Reads a picture's header; no pixel is decoded.

    Raises:
        PictureError: it is empty, missing, no picture, or of a kind that is not supported.
    """
    with _open(source) as image:
        orientation = _orientation(image)
        width, height = image.size if orientation < 5 else image.size[::-1]
        return Header(image.format or "", width, height, orientation, getattr(image, "n_frames", 1))


def decode(
    source: bytes | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = (255, 255, 255),
    at_least: int | None = None,
    animated: Literal["first", "reject"] = "first",
) -> Image.Image:
    """Decodes a picture to upright 8-bit sRGB, mode "RGB".

    Args:
        max_pixels: the most pixels that are decoded; the header is asked before.
        background: the colour under transparent pixels.
        at_least: decode a JPEG at the smallest of its scales whose short side is still this many pixels (libjpeg's
            1/2, 1/4, 1/8): several times faster where the picture is shrunk anyway.
        animated: what to do with several frames.

    Raises:
        PictureError: see Reason.
    """
    with _open(source) as image:
        if image.width * image.height > max_pixels:
            raise PictureError("too_many_pixels", f"{image.width} × {image.height}")
        if animated == "reject" and getattr(image, "is_animated", False) and image.format != "MPO":
            raise PictureError("animated", f"{getattr(image, 'n_frames', 0)} frames")
        if at_least is not None and image.format in ("JPEG", "MPO"):
            scale = min(image.size) / at_least
            if scale > 1:
                image.draft("RGB", (int(image.width / scale), int(image.height / scale)))
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise PictureError("truncated", str(error)) from error
        orientation = _orientation(image)
        upright = _flatten(_to_srgb(_eight_bit(image)), background)
    return _turn(upright, orientation)


def _open(source: bytes | Path) -> Image.Image:
    if isinstance(source, Path) and not source.is_file():
        raise PictureError("missing_file", str(source))
    if (isinstance(source, bytes) and not source) or (isinstance(source, Path) and source.stat().st_size == 0):
        raise PictureError("empty")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_SUPPORTED)
    except Image.DecompressionBombError as error:
        raise PictureError("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:
        raise PictureError("not_an_image", "no known picture format") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError("not_an_image", str(error)) from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greyscale scaled to 8 bits; Pillow's own convert clips them to white."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
    if image.mode == "F" and values.max(initial=0) <= 1:
        top = 1.0
    return Image.fromarray(np.clip(values / top * 255 + 0.5, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a broken profile is as good as none
    return image if converted is None else converted


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode == "RGB":
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    under = Image.new("RGBA", over.size, (*background, 255))
    return Image.alpha_composite(under, over).convert("RGB")
