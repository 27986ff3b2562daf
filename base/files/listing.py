"""Lists folders of images without what only looks like the user's images, and counts what is left out.

Left out are hidden files; what systems leave in folders (thumbnails, recycle bins, resource forks); the mask files of
other trainers; and what dreamloom itself made among the images: runs with their samples, models, audits, trials,
collections and workspaces. Training and ingest list folders by this module alone.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

from dreamloom.base.errors import UserError
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.files.own_folders import DRAWN, own_folder_kind

Place = TypeVar("Place", bound=str | Path)
Seen = TypeVar("Seen")

_SYSTEM = re.compile(
    r"(?i:@eadir|[#@]recycle|#snapshot|@recently-snapshot|\.@__thumb|synophoto_thumb_.*|synofile_thumb_.*"  # NAS
    r"|trashbox|~snapshot|\.snapshot|\.recycle"
    r"|\$recycle\.bin|system volume information|found\.\d{3}|thumbs\.db|ehthumbs.*\.db|desktop\.ini"  # Windows
    r"|__macosx|\._.*|\.ds_store|\.trashes|\.appledouble|network trash folder|temporary items"  # macOS
    r"|lost\+found|\.trash|\.trash-.*|\.thumbnails|\.stversions"  # Linux, and Syncthing
    r"|@tmp|@sharebin|.*@syno(?:eastream|resource)|onedrivetemp|_gsdata_|msocache|config\.msi|\$winreagent"
    r"|.+\.lrdata|ipod photo cache|_vti_cnf|~\$.*"  # caches, locks
    r"|.+\.thm"  # the thumbnails of cameras
    r"|.+\.\w+\.(?:crdownload|part|partial|opdownload|filepart|download|tmp|!ut))"  # what is not finished
    r"|RECYCLER|RECYCLED"  # older Windows: in capitals, as these are words
)
MASKS = re.compile(
    r".*-(masklabel|condlabel)\.(png|jpe?g|webp|bmp|tiff?|gif|apng|avif|jfif|jp2|jxl|hei[cf]|tga)", re.IGNORECASE
)
"""Files beside an image from which OneTrainer reads a mask or a condition, x-masklabel.png; people also save others."""

_WORDS = {
    "system": "of the system (thumbnails, recycle bins and the like)",
    "mask": "masks (-masklabel.png and the like)",
    "run": "inside training runs",
    "collection": "inside collections",
    "workspace": "inside workspaces",
    "model": "inside models",
    "results": "that dreamloom drew (audits, trials, samples)",
    "dead_link": "behind links to nothing (a disk that is not mounted?)",
    "outside": "with names that lead out of their archive",
    "linked": "in folders elsewhere to which links lead (follow_links takes them)",
}
_DEAD_TEXT = "dead_text"
"""What is counted by this word is no image, but beside images."""
_TEXTS = frozenset((".txt", ".caption", ".yaml", ".yml", ".json", ".jsonl", ".csv", ".tsv", ".parquet"))


@dataclass(frozen=True)
class Listed:
    """What a folder holds, by name, without what is left out."""

    files: list["os.DirEntry[str]"]
    """All that is no folder: files, but also pipes and broken links."""
    folders: list["os.DirEntry[str]"]


def list_folder(folder: Path, left_out: Counter[str], only: Literal["files", "folders"] | None = None) -> Listed:
    """Lists a folder, without the folders below it.

    Args:
        folder: the folder.
        left_out: receives the number of images that are left out, by a word for the reason; and of captions, control
            files and tables that are links to nothing.
        only: only these are looked at, and counted; None: both.

    Raises:
        UserError: the folder can't be read.
    """
    listed = Listed([], [])
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{folder} can't be read ({error.strerror}); change its permissions, or move it away."
        ) from error
    in_library = _LIBRARY.fullmatch(folder.name) is not None
    for entry in entries:
        is_folder = _is_folder(entry)
        if only is not None and is_folder is not (only == "folders"):
            continue
        if why := _why_left_out(entry, is_folder, in_library):
            left_out[why] += count_images(Path(entry.path)) if is_folder else is_image_name(entry.name)
        elif _is_dead_link(entry):
            is_text = os.path.splitext(entry.name)[1].lower() in _TEXTS
            left_out[_DEAD_TEXT if is_text else "dead_link"] += 1
        elif not entry.name.startswith("."):
            (listed.folders if is_folder else listed.files).append(entry)
    return listed


def folder_names(folder: Path) -> list[str]:
    """Returns the names of all folders in a folder, also of those that are left out."""
    with os.scandir(folder) as scanned:
        return [entry.name for entry in scanned if _is_folder(entry)]


def visit_folders(
    tops: Iterable[Place], look: Callable[[Place], tuple[Seen, list[Place]]]
) -> Iterator[tuple[Place, Seen]]:
    """Yields folders and those below them, each once wherever links lead, with what is seen in them.

    Args:
        tops: the folders.
        look: Returns what is seen in a folder, and which folders below it are visited next, in their order.
    """
    waiting, visited = [*tops][::-1], set[str]()
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(str(folder))
        if real in visited:  # a link to a folder above
            continue
        visited.add(real)
        seen, below = look(folder)
        yield folder, seen
        waiting += below[::-1]


def walk_folders(
    tops: Iterable[Path], left_out: Counter[str], enters: Callable[["os.DirEntry[str]"], bool] = lambda _: True
) -> Iterator[tuple[Path, Listed]]:
    """Yields folders and those below them, as `visit_folders` does, with what lies in them.

    Args:
        tops: the folders.
        left_out: see `list_folder`.
        enters: Tells whether a folder below is entered.

    Raises:
        UserError: a folder can't be read.
    """

    def look(folder: Path) -> tuple[Listed, list[Path]]:
        listed = list_folder(folder, left_out)
        return listed, [Path(entry.path) for entry in listed.folders if enters(entry)]

    return visit_folders(tops, look)


_LIBRARY = re.compile(r".+\.(?:photos|photo|migratedphoto|ap)library", re.IGNORECASE)
"""A library of Apple's Photos, iPhoto or Aperture: a folder of originals, and of smaller copies for the screen."""
_ORIGINALS = frozenset({"originals", "masters"})
"""The folders of a library in which the originals are."""


def is_left_out(path: str) -> bool:
    """Tells whether a file is left out for its path's names: hidden, of a system, or a mask.

    Args:
        path: relative, with slashes: a member of an archive, or a path below a folder that is searched.
    """
    names = path.split("/")
    hidden = any(name.startswith(".") and name not in (".", "..") for name in names)
    of_system = any(map(_SYSTEM.fullmatch, names)) or any(_is_library_s(*pair) for pair in pairwise(names))
    return hidden or of_system or MASKS.fullmatch(names[-1]) is not None


def may_be_read(path: Path) -> bool:
    """Tells whether a path is a regular file, or nothing that ever was one: a link to nothing, say."""
    return path.is_file() or not path.exists()


def count_images(folder: Path) -> int:
    """Counts the images in a folder and below, by their names; folders that can't be read hold none."""
    return sum(is_image_name(name) for _, _, names in os.walk(folder) for name in names)


def left_out_note(left_out: Mapping[str, int]) -> str | None:
    """Returns what was left out, in sentences; None: nothing was."""
    images = {why: count for why, count in sorted(left_out.items()) if count and why != _DEAD_TEXT}
    counts = ", ".join(f"{count:,} {_WORDS[why]}" for why, count in images.items())
    sentences = [f"{sum(images.values()):,} images are left out: {counts}."] if images else []
    if texts := left_out.get(_DEAD_TEXT):
        sentences += [f"{texts:,} captions, control files or tables are links to nothing, and are not read."]
    return " ".join(sentences) or None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or into a folder that can't be entered
        return False


def is_dead_image_link(entry: "os.DirEntry[str]") -> bool:
    """Tells whether an entry is a link to nothing that is named like an image."""
    return _leads_nowhere(entry) and is_image_name(entry.name)


def _is_dead_link(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a link to nothing that may have been a folder; one that is named like an image is listed as one."""
    return _leads_nowhere(entry) and not entry.name.startswith(".") and not is_image_name(entry.name)


def _leads_nowhere(entry: "os.DirEntry[str]") -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_library_s(folder: str, name: str) -> bool:
    """Whether what lies in a folder is a library's own, and no original."""
    return _LIBRARY.fullmatch(folder) is not None and name.lower() not in _ORIGINALS


def _why_left_out(entry: "os.DirEntry[str]", is_folder: bool, in_library: bool) -> str | None:
    if _SYSTEM.fullmatch(entry.name) or (in_library and entry.name.lower() not in _ORIGINALS):
        return "system"
    if not is_folder:
        return "mask" if MASKS.fullmatch(entry.name) else "results" if DRAWN.fullmatch(entry.name) else None
    return None if entry.name.startswith(".") else own_folder_kind(Path(entry.path))
