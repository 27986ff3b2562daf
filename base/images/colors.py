"""Brings the pixels of any mode, depth and color space to 8-bit sRGB, and finds out what is transparent."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")


def flatten(image: Image.Image, background: tuple[int, int, int] | None) -> Image.Image:
    """Converts an image of any mode to opaque 8-bit sRGB, mode "RGB".

    Args:
        image: any that Pillow has decoded.
        background: the RGB color under transparent pixels; None: a transparent image becomes "RGBA".
    """
    profile = foreign_profile(image)
    image, alpha = _split_alpha(image)
    if image.mode == "LAB":  # the grid that LittleCMS else interpolates in is off by up to 28 of 255
        image = _converted(image, ImageCms.ImageCmsProfile(_LAB), ImageCms.Flags.NOOPTIMIZE)
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    if profile is not None:
        image = _converted(image, profile)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if alpha is None:
        return image
    if background is None:
        image.putalpha(alpha)
        return image
    return Image.composite(image, Image.new("RGB", image.size, background), alpha)


def alpha_channel(image: Image.Image) -> Image.Image:
    """Returns the alpha channel, or what a transparent color makes of one, mode "L": 255 is opaque."""
    image, alpha = _split_alpha(image)
    return alpha or Image.new("L", image.size, 255)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scales 16-bit and float pixels to 8 bits, and makes transparency of any kind an alpha channel; None: opaque."""
    if image.mode[0] in "IF":
        image = _eight_bit(image)
    if not image.has_transparency_data:
        return image, None
    image = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    return image, image.getchannel("A")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit, 32-bit and float grayscale to 8 bits; Pillow's own convert clips them to white."""
    raw = np.asarray(image)
    values = np.nan_to_num(raw.astype(np.float32), nan=0.0, posinf=np.inf, neginf=0.0)
    values *= 255 / _white_level(image, values)
    gray = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    if _tags(image).get(262) == 0:  # PhotometricInterpretation: white is zero, which Pillow respects in 8 bits only
        gray = 255 - gray
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha = np.where(raw == transparent, 0, 255).astype(np.uint8)
        return Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha)))
    return Image.fromarray(gray)


def _white_level(image: Image.Image, values: npt.NDArray[np.float32]) -> float:
    """The value of white.

    Up to 16 bits it is the largest value that the bits can hold (TIFF 6.0, PhotometricInterpretation; PNG 3, 12.4),
    even if no pixel comes near it, so that a dark photo stays dark. 32-bit and float files do not say; there it is the
    smallest usual value of white that no pixel exceeds.
    """
    tags = _tags(image)
    bits = int(tags.get(258, (16 if image.mode.startswith("I;16") else 32,))[0])
    signed = next(iter(tags.get(339, (1,)))) == 2
    if image.format == "PPM" and image.mode == "I":  # Pillow scales to 16 bits whatever the file has above 8
        return 65535.0
    if bits <= 16:
        return float(2 ** (bits - signed) - 1)
    top = float(values.max(initial=0))
    usual_whites = ((1.0,) if image.mode == "F" else ()) + (255.0, 65535.0, 2.0**31 - 1)
    return next((white for white in usual_whites if top <= white), top)


def _tags(image: Image.Image) -> dict[int, Any]:
    return dict(getattr(image, "tag_v2", {}))


def foreign_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Returns an image's ICC profile; None where it has none, a broken one, or sRGB."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        name = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # broken
    return None if "sRGB" in name else profile


def _converted(
    image: Image.Image, profile: ImageCms.ImageCmsProfile, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> Image.Image:
    try:
        converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a profile of another colour space than the image's
    return image if converted is None else converted
