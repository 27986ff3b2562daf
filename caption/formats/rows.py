"""What all formats share: rows of an image with its caption, and unique names."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.text import without_surrogates
from dreamloom.caption.filename import MAX_BYTES, RESERVED, cut
from dreamloom.caption.sidecar import SidecarContent, parse_sidecars
from dreamloom.scrape.datasets.image_files import find_images

Note = Callable[[str, str], None]
"""Reports something odd that stops nothing: its kind, and where it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image and its caption."""

    name: str
    """Relative to the folder that was read: "john/a man_1.jpg"."""
    caption: str | None
    """None: the format has no caption for it. It may be empty."""
    file: str
    """The path of the image, or of the shard that contains it."""
    span: tuple[int, int] | None = None
    """Its first byte in the shard, and its length."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Other metadata, under img2dataset's names: url, license, …"""

    def read(self) -> bytes:
        """Reads the image's bytes."""
        with open(self.file, "rb") as stream:
            return stream.read() if self.span is None else os.pread(stream.fileno(), self.span[1], self.span[0])

    @property
    def size(self) -> int:
        """Length of the image's bytes."""
        return os.stat(self.file).st_size if self.span is None else self.span[1]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image of a folder, before its caption is read."""

    name: str
    """Relative to the folder: "john/a man_1.jpg"."""
    folder: str
    """The path of its folder."""
    siblings: FolderNames
    """The names of all files in its folder."""

    @property
    def base(self) -> str:
        """Its name without folders: "a man_1.jpg"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def file(self) -> str:
        """Its path."""
        return f"{self.folder}/{self.base}"


def list_images(folder: Path) -> Iterator[ImageFile]:
    """Lists the images of a folder and of all folders below it, in order.

    Raises:
        UserError: there is none.
    """
    start = len(f"{folder}/".removeprefix("./"))
    for path, siblings in find_images(folder, follow_links=True):
        text = str(path)
        yield ImageFile(text[start:], text.rpartition("/")[0] or ".", siblings)


def read_noted_sidecars(image: ImageFile, suffixes: tuple[str, ...], note: Note) -> SidecarContent:
    """Reads the sidecars of an image, and notes what is odd about them."""
    content = parse_sidecars(image.folder, image.base, suffixes, image.siblings)
    for sentence in content.unreadable:
        note("sidecar that can't be read", f"{image.folder}/{sentence}")
    if content.encoding != "UTF-8":
        note(f"sidecar in {content.encoding}", image.file)
    if content.own and content.own.settings:
        note("settings in a YAML, which stay behind", f"{image.file}: {', '.join(content.own.settings)}")
    return content


def sanitize(name: str) -> str:
    """Removes from a relative path what leads elsewhere, hides a file, or is no text. The extension stays."""
    *folders, base = without_surrogates(name).replace("\\", "/").replace("\0", " ").split("/")
    stem, extension = os.path.splitext(base)
    parts = [part for folder in folders if (part := folder.lstrip(". "))]
    return "/".join([*parts, (stem.lstrip(". ") or "picture") + extension])


class UniqueNames:
    """Names for the images of a new folder.

    An image keeps its name, unless another has the same stem on some system, so that they would share a sidecar, or
    some program could not read it.
    """

    def __init__(self) -> None:
        """Starts without names."""
        self._used: dict[str, int] = {}  # stem with its folder, case folded → up to which number it is taken

    def assign(self, name: str) -> str:
        """Returns the name under which an image is written, relative to the folder and always inside it."""
        *folders, base = sanitize(name).split("/")
        original, extension = os.path.splitext(base)
        stem = cut(original, _ROOM) or "picture"
        first = self._key(folders, stem)
        count = self._used.get(first, 1 if _fold(stem) in RESERVED else 0) + 1
        full = stem if count == 1 else f"{stem}_({count})"
        while self._key(folders, full) in self._used:
            count += 1
            full = f"{stem}_({count})"
        self._used[first] = count
        self._used.setdefault(self._key(folders, full), 1)
        return "/".join([*folders, f"{full}{extension}"])

    def _key(self, folders: list[str], stem: str) -> str:
        return _fold("/".join([*folders, stem]))


def oddities(caption: str) -> Iterator[str]:
    """Yields what is odd about a caption, though it may be intended."""
    if not caption.strip():
        yield "empty caption"
    elif _PATH.match(caption):
        yield "caption that is a path"
    if _CONTROL.search(caption):
        yield "control characters in a caption"


_ROOM = MAX_BYTES - len("_(1000000)") - len(".caption")
_PATH = re.compile(
    r"(~?/|\.{1,2}/|[A-Za-z]:[\\/])\S|\S+[\\/]\S+\.(jpe?g|png|webp|gif|bmp|txt|caption)\Z", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def _fold(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())
