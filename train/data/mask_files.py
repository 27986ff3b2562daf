"""Finds the loss masks of images: which part of an image its loss is about.

    x.jpg   x-masklabel.png      white counts, black does not, gray counts in part: OneTrainer's convention

The case of the names does not count, and a mask may also be a JPEG, WebP, BMP or TIFF. Or the image's own alpha channel
is its mask.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from dreamloom.base.files.file_index import content_hashes
from dreamloom.base.files.folder_names import fold_name
from dreamloom.base.files.listing import MASKS
from dreamloom.base.images.buckets import Size
from dreamloom.base.images.pixels import ImageError, ImageHeader, read_header
from dreamloom.train.config_fields import MaskKind
from dreamloom.train.data.image import ByteRange

_MASK = re.compile(r"(.*)-masklabel\.\w+", re.IGNORECASE | re.DOTALL)
"""The name of a mask, among those that `dreamloom.base.files.listing.MASKS` leaves out: the stem of its image."""


@dataclass(frozen=True)
class Mask:
    """The loss mask of an image, not yet decoded."""

    source: ByteRange
    """The mask's file, or the image whose alpha channel it is."""
    content: str
    """The sha256 of the mask's file; "alpha": the image's alpha channel."""


def find_masks(images: Sequence[tuple[ByteRange, ImageHeader]], kind: MaskKind) -> list[Mask | str | None]:
    """Finds the mask of each image; reads headers, and hashes the masks' files.

    Args:
        images: where each image lies, and its header.
        kind: where masks are looked for.

    Returns:
        For each image its mask, None if it has none, or a word that says why its mask can't be used.
    """
    of_folder = cache(_list_masks)
    found: list[Mask | str | None] = [None] * len(images)
    if kind == "files":
        files = [None if source.length is not None else os.path.dirname(source.file) or "." for source, _ in images]
        masks_of = [of_folder(folder) if folder else None for folder in files]
        found = [_find_file(*image, masks) if masks else None for image, masks in zip(images, masks_of, strict=True)]
    elif kind == "alpha":
        found = [_find_alpha(source, header) for source, header in images]
    masks = [mask for mask in found if isinstance(mask, Mask) and not mask.content]
    hashes = dict(zip(masks, content_hashes([mask.source for mask in masks]) if masks else [], strict=True))
    return [_with_content(mask, hashes[mask]) if mask in hashes else mask for mask in found]


def _find_alpha(source: ByteRange, header: ImageHeader) -> Mask | None:
    return Mask(source, "alpha") if header.transparent else None


def _list_masks(folder: str) -> Mapping[str, str]:
    """Lists a folder's masks by the stems of their images, without regard to case; a .png before others."""
    names = sorted(filter(MASKS.fullmatch, os.listdir(folder)), reverse=True)
    names.sort(key=lambda name: name.lower().endswith(".png"))
    return {fold_name(match[1]): f"{folder}/{name}" for name in names if (match := _MASK.fullmatch(name))}


def _find_file(source: ByteRange, header: ImageHeader, masks: Mapping[str, str]) -> Mask | str | None:
    path = masks.get(fold_name(source.path.stem))
    if path is None:
        return None
    try:
        mask = read_header(Path(path))
    except ImageError:
        return "broken_mask"
    if not _have_one_shape((mask.width, mask.height), (header.width, header.height)):
        return "mask_of_another_shape"
    return Mask(ByteRange(path), "")


def _with_content(mask: Mask, content: str | None) -> Mask | str:
    return replace(mask, content=content) if content else "broken_mask"


def _have_one_shape(mask: Size, image: Size) -> bool:
    """Whether a mask is its image at some scale, to within a pixel of the mask."""
    height = mask[0] * image[1] / image[0]
    width = mask[1] * image[0] / image[1]
    return abs(height - mask[1]) <= 1 or abs(width - mask[0]) <= 1
