"""Tells in which order the images of a folder and below come, and lists no large folder again of which no file changed.

An image comes where its path does. So the images of a folder follow one another, but for the folders that come between
by their names: they are one run, or a few.
"""

import os
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.files.listing import folder_names, list_folder, visit_folders
from dreamloom.base.files.remembered import remembered
from dreamloom.base.files.tree_state import FolderLook, TreeLook, look_at_tree
from dreamloom.base.stage import recipe
from dreamloom.scrape.datasets.image_files import find_images, is_entered, is_image, require_folder_of_images
from dreamloom.scrape.datasets.source_kind import size_of_files

_VERSION = 1
"""Raised when other images are found in the same files."""
_MANY = 256
"""Files of a folder from which on it is remembered what they are: a note takes a block of the disk."""


class ImageRun(NamedTuple):
    """Images of one folder that follow one another in the order of all."""

    folder: Path
    state: str | None
    """Of the folder (dreamloom.base.files.tree_state); None: it may change unseen."""
    start: int
    """Place of the first among the images of the folder."""
    stop: int


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder and below."""

    runs: list[ImageRun]
    """In order."""
    bytes: int
    left_out: dict[str, int]
    """Images that are left out, by a word for the reason."""

    @property
    def count(self) -> int:
        """The number of images."""
        return sum(run.stop - run.start for run in self.runs)

    def parts(self, part_rows: int) -> dict[str, list[ImageRun]]:
        """Returns part → the runs of its images, as `dreamloom.scrape.collection.parts.split` does with rows."""
        parts: dict[str, list[ImageRun]] = {}
        done = 0
        for run in self.runs:
            start = run.start
            while start < run.stop:
                number, inside = divmod(done, part_rows)
                stop = min(run.stop, start + part_rows - inside)
                parts.setdefault(f"{number:05d}", []).append(run._replace(start=start, stop=stop))
                done, start = done + stop - start, stop
        return parts


def find_runs(folder: Path, follow_links: bool = False, look_before: TreeLook | None = None) -> FoundImages:
    """Finds the images that `dreamloom.scrape.datasets.image_files.find_images` does, and raises what it does.

    Args:
        folder: the folder.
        follow_links: whether links to folders outside this one are followed.
        look_before: what was seen in it just now; None: it is looked at.
    """
    require_folder_of_images(folder)
    left_out = Counter[str]()
    seen = (look_before or look_at_tree([folder], follow_links)).folders
    enters = partial(is_entered, root=Path(os.path.realpath(folder)), left_out=left_out, follow_links=follow_links)

    def look(inside: Path) -> tuple[dict[str, Any], list[Path]]:
        known = seen.get(os.fspath(inside))
        below: list[Path] = []
        if known is None or known.has_folders:
            listed = list_folder(inside, left_out, only="folders")
            below = [Path(entry.path) for entry in listed.folders if enters(entry)]
        return _look_up(inside, known), below

    found: list[tuple[tuple[str, ...], ImageRun]] = []
    size = 0
    for inside, own in visit_folders([folder], look):
        known = seen.get(os.fspath(inside))
        left_out.update(own["left_out"])
        size += own["bytes"]
        for first, start, stop in own["runs"]:
            found.append(((*inside.parts, first), ImageRun(inside, known.state if known else None, start, stop)))
    if not found:
        find_images(folder, None, follow_links)  # which says so
    return FoundImages([run for _, run in sorted(found, key=itemgetter(0))], size, dict(left_out))


def list_images(folder: Path, left_out: Counter[str] | None = None) -> tuple[list[str], FolderNames]:
    """Lists a folder without those below it.

    Args:
        folder: the folder.
        left_out: see `dreamloom.base.files.listing.list_folder`.

    Returns:
        The names of its images, in order, and of all its files.

    Raises:
        UserError: the folder can't be read.
    """
    listed = list_folder(folder, Counter() if left_out is None else left_out, only="files")
    names = [entry.name for entry in listed.files]
    return [name for name in names if is_image(folder, name)], FolderNames(names)


def _look_up(folder: Path, known: FolderLook | None) -> dict[str, Any]:
    """Returns the runs of a folder, the bytes of its images, and what is left out beside them."""
    if known is None or known.state is None or known.files < _MANY:
        return _list(folder)
    place = recipe("images of a folder", _VERSION, {"folder": str(folder.absolute())}, [known.state])
    return dict(remembered(place, lambda: _list(folder)))


def _list(folder: Path) -> dict[str, Any]:
    left_out = Counter[str]()
    images, _ = list_images(folder, left_out)
    cuts = {0, len(images), *(bisect_left(images, name) for name in folder_names(folder))}
    return {
        "runs": [(images[start], start, stop) for start, stop in pairwise(sorted(cuts))],
        "bytes": size_of_files(folder / name for name in images).bytes,
        "left_out": dict(left_out),
    }
