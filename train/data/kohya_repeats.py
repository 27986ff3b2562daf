"""Folder names of kohya's sd-scripts, "10_cat": each image of the folder is shown 10 times per epoch.

https://github.com/kohya-ss/sd-scripts (docs/train_README-en.md, "DreamBooth, class + identifier method")
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from pathlib import PurePosixPath

from dreamloom.train.data.image import ImageFolder
from dreamloom.train.data.notes import Notes

_NAME = re.compile(r"(\d{1,4})_.*")
_YEARS = 1000
"""From here on, a number is rather a year (2023_summer) than a number of repeats."""


def multiply_by_repeats(folders: Sequence[ImageFolder]) -> tuple[ImageFolder, ...]:
    """Multiplies the images of each folder by the numbers in its name and in those of the folders above."""
    return tuple(_multiplied(folder, repeats) for folder in folders for repeats in [_repeats(folder)])


def note_repeats(folders: Sequence[ImageFolder], notes: Notes) -> tuple[ImageFolder, ...]:
    """Notes which folders have kohya's names and no multiply of their own; returns the folders as they are."""
    for folder in folders:
        if folder.multiply == 1 and 1 < (repeats := _repeats(folder)) < _YEARS:
            kind = "kohya's repeats in folder names, which count with kohya_repeats, or in a multiply.txt"
            notes(kind, f"{folder.name} (× {repeats})")
    return tuple(folders)


def _repeats(folder: ImageFolder) -> int:
    matches = map(_NAME.fullmatch, PurePosixPath(folder.name).parts)
    return prod(int(match[1]) for match in matches if match)


def _multiplied(folder: ImageFolder, repeats: int) -> ImageFolder:
    if repeats == 1:
        return folder
    images = tuple(
        replace(image, settings=replace(image.settings, multiply=image.settings.multiply * repeats))
        for image in folder.images
    )
    return replace(folder, multiply=folder.multiply * Fraction(repeats), images=images)
