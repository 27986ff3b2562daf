"""Crops images as somebody decided: what training is shown of an image is a file of its own."""

from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import ImageError, decode

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

_SAVED: dict[str, dict[str, Any]] = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}
"""Extension → how the crop is saved, beside its format."""


def crop_box(crop: str, size: tuple[int, int]) -> Box:
    """Returns the part of an image that a decision names, without what lies outside of it.

    Args:
        crop: left,top,right,bottom in pixels; or in shares of the sides, where all are at most 1.
        size: width and height of the image.

    Raises:
        ValueError: nothing of it lies inside the image.
    """
    edges = [float(edge) for edge in crop.split(",")]
    if max(edges) <= 1:
        edges = [edge * side for edge, side in zip(edges, (*size, *size), strict=True)]
    left, top, right, bottom = (min(round(edge), side) for edge, side in zip(edges, (*size, *size), strict=True))
    if left >= right or top >= bottom:
        raise ValueError(f"the image has {size[0]} × {size[1]} pixels")
    return left, top, right, bottom


def write_crop(image: Path | bytes, target: Path, crop: str, name: str) -> None:
    """Writes a part of an image into a new file, in the format of its extension.

    Args:
        image: its file or its bytes.
        target: the file to write.
        crop: see `crop_box`.
        name: of the image, for the error.

    Raises:
        UserError: nothing of the crop lies inside the image, or the image can't be read.
    """
    try:
        pixels = decode(image)
        part = pixels.crop(crop_box(crop, pixels.size))
    except (ValueError, ImageError) as error:
        raise UserError(
            f"The crop {crop} of {name} can't be made ({error}); crop it again, or take it back with dreamloom undo."
        ) from None
    part.save(target, **_SAVED.get(target.suffix.lower(), {}))
