"""Finds image files in folders."""

import errno
import mimetypes
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames, fold_name, path_key
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.files.listing import count_images, is_left_out, left_out_note, may_be_read, walk_folders
from dreamloom.base.files.own_folders import refuse_own_folder
from dreamloom.base.images.formats import begins_like_an_image
from dreamloom.base.images.pixels import ImageError
from dreamloom.scrape.datasets.sidecar_files import SIDECARS
from dreamloom.scrape.datasets.source_kind import SourceSize, size_of_files
from dreamloom.scrape.datasets.source_recipes import FileVersion

LARGE_BYTES = 2**29
MAX_BYTES = 2**32
"""Maximum size of an image file, which is read into memory: that of a gigapixel in four bytes a pixel. A file takes no
space on a disk for its zeros, so a huge one costs whoever makes it nothing."""


_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class UnreadableError(ImageError):
    """A file that is there, and that the system does not let us read: another time it may."""


class ListedFile(NamedTuple):
    """An image file that a source lists."""

    key: str
    path: Path
    version: FileVersion
    """Of the file, and of what else its row is made from."""
    siblings: FolderNames | None = None
    """The names of all files in its folder, where sidecars are looked for; None: they are not."""

    @property
    def exists(self) -> bool:
        """Whether the file existed when it was listed."""
        return self.version.exists


def find_images(
    folder: Path, left_out: Counter[str] | None = None, follow_links: bool = False
) -> list[tuple[Path, FolderNames]]:
    """Finds the images in a folder and below, sorted by path, as `dreamloom.base.files.listing` lists them.

    Args:
        folder: the folder.
        left_out: receives the number of images that are left out, by a word for the reason.
        follow_links: whether links to folders outside this one are followed.

    Returns:
        Each image with the names of all files in its folder.

    Raises:
        UserError: the folder does not exist, one below it can't be read, it is one of dreamloom's own, or there is no
            image.
    """
    require_folder_of_images(folder)
    left_out = Counter() if left_out is None else left_out
    folders = list(_walk(folder, left_out, follow_links))
    images = [
        ((*parent.parts, name), number)
        for number, (parent, names) in enumerate(folders)
        for name in names
        if is_image(parent, name)
    ]
    if not images:
        extensions = Counter(os.path.splitext(name)[1] for _, names in folders for name in names)
        most_common = (f"{count} {ext or 'without extension'}" for ext, count in extensions.most_common(3))
        content = ", ".join(most_common) or "no file at all"
        note = f" {note}" if (note := left_out_note(left_out)) else ""
        raise UserError(f"{folder} contains no image ({content}); name a folder that contains some.{note}")
    images.sort()  # before paths are made, which take longer to compare
    return [(folders[number][0] / parts[-1], folders[number][1]) for parts, number in images]


def require_folder_of_images(folder: Path) -> None:
    """Raises UserError unless there is such a folder that is none of dreamloom's own."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the folder that contains the images.")
    refuse_own_folder(folder)


def is_image(folder: Path, name: str) -> bool:
    """Tells whether a file is an image, by its name; one that has no known extension, by its first bytes."""
    if is_image_name(name):
        return True
    kind = mimetypes.guess_type(name, strict=False)[0]
    is_known = kind not in (None, "application/octet-stream") or os.path.splitext(name)[1].lower() in SIDECARS
    return not is_known and begins_like_an_image(folder / name)


def _walk(folder: Path, left_out: Counter[str], follow_links: bool) -> Iterator[tuple[Path, FolderNames]]:
    """Yields a folder and those below it, each once, with the names of their files."""
    enters = partial(is_entered, root=Path(os.path.realpath(folder)), left_out=left_out, follow_links=follow_links)
    for parent, listed in walk_folders([folder], left_out, enters):
        yield parent, FolderNames(entry.name for entry in listed.files)


def is_entered(entry: "os.DirEntry[str]", root: Path, left_out: Counter[str], follow_links: bool) -> bool:
    """Tells whether a folder below the one that is searched is entered, or counts its images among those left out."""
    if follow_links or not entry.is_symlink() or Path(os.path.realpath(entry.path)).is_relative_to(root):
        return True
    left_out["linked"] += count_images(Path(entry.path))
    return False


def read_file(path: Path) -> bytes:
    """Reads an image file whole; one of more than LARGE_BYTES only if it begins like an image.

    Raises:
        ImageError: `missing_file`: it is not there, or no regular file; `too_many_pixels`: it is longer than MAX_BYTES;
            `not_an_image`. UnreadableError: `missing_file`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe, or /dev/zero, never ends
            raise ImageError("missing_file", "no regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError("too_many_pixels", f"it has more than {MAX_BYTES >> 30} GiB")
        if status.st_size > LARGE_BYTES and not begins_like_an_image(path):
            raise ImageError("not_an_image", "no known picture format")
        return path.read_bytes()
    except OSError as error:
        kind = ImageError if error.errno in _GONE else UnreadableError
        raise kind("missing_file", error.strerror or "") from error


class NamedFiles:
    """The files of a folder and below, found by the paths that tables have of them.

    A table may compose accents otherwise than the file system, be written on Windows, where case does not count, escape
    blanks as %20, or name folders that its paths are already inside ("val2014/1.jpg" in val2014); the exact name goes
    first.
    """

    def __init__(self, folder: Path) -> None:
        """Stores the folder; its files are listed when a name is first found nowhere."""
        self._folder = folder

    def find(self, name: str) -> Path:
        """Returns the file of a name relative to the folder; one that does not exist, if there is none."""
        name = name if _may_be_a_name(name) else path_key(name).replace("\0", "\ufffd")
        path = self._folder / name
        if os.path.lexists(path):
            return path
        key = path_key(name)
        wanted = [key, *self._without_repeats(key)]
        wanted += [unquote(each) for each in wanted if "%" in each]
        return next(filter(None, map(self._find_alike, wanted)), path)

    def _find_alike(self, key: str) -> Path | None:
        alike = self._by_folded.get(fold_name(key), [])
        exact = [each for each in alike if path_key(self._inside(each)) == key]
        return exact[-1] if exact else alike[0] if len(alike) == 1 else None

    def _without_repeats(self, key: str) -> Iterator[str]:
        """Yields a path without folders that it names twice: a/a/1.jpg, and those that the folder itself lies in."""
        above, parts = self._above, tuple(key.split("/"))
        for begin, end in combinations(range(len(parts)), 2):
            if ((*above, *parts[:begin])[begin - end :]) == parts[begin:end]:
                yield "/".join((*parts[:begin], *parts[end:]))

    @cached_property
    def _above(self) -> tuple[str, ...]:
        """The folders that the folder lies in, and its own name."""
        return self._folder.resolve().parts

    @cached_property
    def _by_folded(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for parent, _, names in os.walk(self._folder):
            for path in (Path(parent, name) for name in sorted(names)):
                found.setdefault(fold_name(path_key(self._inside(path))), []).append(path)
        return found

    def _inside(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _may_be_a_name(text: str) -> bool:
    """Whether a file system can hold a name: it has no NUL, and no half of a surrogate pair but for foreign bytes."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def leads_out(name: str) -> bool:
    """Tells whether a relative path, with slashes of any system, leads out of its folder."""
    path = Path(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) is not None


def find_files(folder: Path, *patterns: str) -> list[Path]:
    """Finds the files in a folder and below whose names fit, in any case, sorted; without hidden and systems' files.

    Links to nothing are among them, as whoever reads them says so; folders and pipes, which never end, are not.
    """
    files = (path for path in folder.rglob("*") if any(fnmatchcase(path.name.lower(), each) for each in patterns))
    return sorted(path for path in files if may_be_read(path) and not is_left_out(path.relative_to(folder).as_posix()))


def size_of_folder(folder: Path, follow_links: bool = False) -> SourceSize:
    """Measures the images in a folder and below.

    Args:
        folder: the folder.
        follow_links: see `find_images`.

    Raises:
        UserError: the folder does not exist or contains no image.
    """
    return size_of_files(path for path, _ in find_images(folder, follow_links=follow_links))
