"""Finds image files in folders, and tells whether they changed."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.image_types import IMAGE_EXTENSIONS
from dreamloom.scrape.datasets.source_kind import SourceSize, size_of_files


@dataclass(frozen=True)
class ListedFile:
    """An image file that a source lists."""

    key: str
    path: Path
    version: str
    """Changes when the file changes, or what its row is made from."""
    siblings: frozenset[str] = frozenset()
    """The names of all files in its folder, where sidecars are looked for."""

    @property
    def exists(self) -> bool:
        """Whether the file existed when it was listed."""
        return not self.version.endswith(_MISSING)


def find_images(folder: Path) -> list[tuple[Path, frozenset[str]]]:
    """Finds the images in a folder and below, sorted by path; hidden files and folders are skipped.

    Returns:
        Each image with the names of all files in its folder.

    Raises:
        UserError: the folder does not exist, one below it can't be read, or there is no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the folder that contains the images.")
    images: list[tuple[Path, frozenset[str]]] = []
    extensions: Counter[str] = Counter()
    visited = set()
    for parent, folders, files in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        if os.path.realpath(parent) in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = frozenset(name for name in files if not name.startswith("."))
        by_name = {name: os.path.splitext(name)[1] for name in names}
        images += [(Path(parent, name), names) for name, ext in by_name.items() if ext.lower() in IMAGE_EXTENSIONS]
        extensions.update(by_name.values())
    if not images:
        most_common = (f"{count} {ext or 'without extension'}" for ext, count in extensions.most_common(3))
        content = ", ".join(most_common) or "no file at all"
        raise UserError(f"{folder} contains no image ({content}); name a folder that contains some.")
    return sorted(images, key=lambda image: image[0].parts)


def size_of_folder(folder: Path) -> SourceSize:
    """Measures the images in a folder and below.

    Raises:
        UserError: the folder does not exist or contains no image.
    """
    return size_of_files(path for path, _ in find_images(folder))


def file_version(*files: Path) -> str:
    """Returns name, size and modification time of files, as text; a file that does not exist is "missing"."""
    return "|".join(_version(file) for file in files)


_MISSING = " missing"


def _version(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return f"{file.name}{_MISSING}"
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def _raise_unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} can't be read ({error.strerror}); change its permissions, or move it away.")
