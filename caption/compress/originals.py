"""Lists the images of a folder, each with its new name, its sidecars and its masks."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.files.folder_names import fold_name
from dreamloom.base.files.listing import MASKS
from dreamloom.caption.filename import find_controls
from dreamloom.caption.formats.rows import UniqueNames
from dreamloom.scrape.datasets.image_files import find_images
from dreamloom.scrape.datasets.sidecar_files import find_sidecars

_MASK = re.compile(r"(.*)(-(?:masklabel|condlabel))\.\w+", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Original:
    """An image of the folder, and what belongs to it."""

    path: Path
    place: str
    """Of its folder, relative to the one that is compressed."""
    new_name: str
    """Of the new image, relative to the new folder, without a suffix."""
    sidecars: tuple[tuple[str, str], ...]
    """Extension and name of each."""
    masks: tuple[tuple[str, str], ...]
    """What follows the stem, and the name, of each."""


def list_originals(folder: Path, left_out: Counter[str]) -> list[Original]:
    """Lists the images of a folder, and gives each a name that no other has; a.png and a.jpg have one stem.

    Args:
        folder: the folder.
        left_out: receives the number of images that are left out, by a word for the reason.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    names, masks = UniqueNames(), _MasksOf()
    originals = []
    for path, siblings in find_images(folder, left_out):
        place = path.parent.relative_to(folder).as_posix()
        new_name = os.path.splitext(names.assign(path.relative_to(folder).with_suffix(".x").as_posix()))[0]
        controls = {name for found in find_controls(siblings).values() for name in found}
        sidecars = tuple(found for found in find_sidecars(path.name, siblings) if found[1] not in controls)
        originals.append(Original(path, place, new_name, sidecars, masks.of(path)))
    return originals


class _MasksOf:
    """The masks beside images, which are not listed as images."""

    def __init__(self) -> None:
        self._by_folder: dict[Path, Mapping[str, list[tuple[str, str]]]] = {}

    def of(self, image: Path) -> tuple[tuple[str, str], ...]:
        """Returns what follows the stem of an image, and the name, of each of its masks."""
        if image.parent not in self._by_folder:
            found: dict[str, list[tuple[str, str]]] = defaultdict(list)
            for name in sorted(filter(MASKS.fullmatch, os.listdir(image.parent))):
                if match := _MASK.fullmatch(name):
                    found[fold_name(match[1])].append((match[2], name))
            self._by_folder[image.parent] = found
        return tuple(self._by_folder[image.parent].get(fold_name(image.stem), ()))
