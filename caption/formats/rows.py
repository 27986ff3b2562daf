"""What all formats have in common: an image with its caption, and names that no two images share."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamloom.caption.filename import MAX_BYTES, RESERVED, cut
from dreamloom.caption.sidecar import Written, look_beside
from dreamloom.scrape.datasets.image_files import find_images
from dreamloom.scrape.datasets.ingest import SURROGATES

Note = Callable[[str, str], None]
"""Takes note of something odd that stops nothing: of what kind it is, and where."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image and its caption."""

    name: str
    """Relative to the folder that was read: "john/a man_1.jpg"."""
    caption: str | None
    """None: the format has none for it. Empty is one."""
    file: str
    """The path of the image, or of the shard that it lies in."""
    place: tuple[int, int] | None = None
    """Where it lies in a shard: its first byte, and how many."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of it, by the names that img2dataset gives: url, license, …"""

    def read(self) -> bytes:
        """The image's bytes."""
        with open(self.file, "rb") as stream:
            return stream.read() if self.place is None else os.pread(stream.fileno(), self.place[1], self.place[0])

    @property
    def size(self) -> int:
        """The image's bytes, counted."""
        return os.stat(self.file).st_size if self.place is None else self.place[1]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a folder, before its caption is known."""

    name: str
    """Relative to the folder: "john/a man_1.jpg"."""
    folder: str
    """The path of the folder in which it lies."""
    beside: frozenset[str]
    """The names of all files there."""

    @property
    def base(self) -> str:
        """ "a man_1.jpg"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def file(self) -> str:
        """Its path."""
        return f"{self.folder}/{self.base}"


def pictures(folder: Path) -> Iterator[Picture]:
    """The images of a folder and of all folders below it, in order.

    Raises:
        UserError: there is none.
    """
    start = len(f"{folder}/".removeprefix("./"))
    for path, beside in find_images(folder):
        text = str(path)
        yield Picture(text[start:], text.rpartition("/")[0] or ".", beside)


def look_at(picture: Picture, suffixes: tuple[str, ...], note: Note) -> Written:
    """What the sidecars of an image say; what is odd about them is noted."""
    written = look_beside(picture.folder, picture.base, suffixes, picture.beside)
    for one in written.passed_over:
        note("sidecar that can't be read", f"{picture.folder}/{one}")
    if written.encoding != "UTF-8":
        note(f"sidecar in {written.encoding}", picture.file)
    if written.settings:
        note("settings in a YAML, which stay behind", f"{picture.file}: {', '.join(map(str, written.settings))}")
    return written


def safe(name: str) -> str:
    """A relative path without what leads elsewhere, is hidden, or is no text. Its extension stays."""
    *folders, base = name.translate(SURROGATES).replace("\\", "/").replace("\0", " ").split("/")
    stem, extension = os.path.splitext(base)
    parts = [part for each in folders if (part := each.lstrip(". "))]
    return "/".join([*parts, (stem.lstrip(". ") or "picture") + extension])


class Names:
    """Names for the images of a new folder: their own, unless another has the same stem on some system, as images
    of one stem would share a sidecar; or unless some program could not read it."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}  # stem with its folder, case folded → up to which number it is taken

    def name(self, name: str) -> str:
        """The name under which an image is written, relative to the folder, always inside it."""
        *folders, base = safe(name).split("/")
        whole, extension = os.path.splitext(base)
        stem = cut(whole, _ROOM) or "picture"
        first = self._key(folders, stem)
        count = self._used.get(first, 1 if _folded(stem) in RESERVED else 0) + 1
        full = stem if count == 1 else f"{stem}_({count})"
        while self._key(folders, full) in self._used:
            count += 1
            full = f"{stem}_({count})"
        self._used[first] = count
        self._used.setdefault(self._key(folders, full), 1)
        return "/".join([*folders, f"{full}{extension}"])

    def _key(self, folders: list[str], stem: str) -> str:
        return _folded("/".join([*folders, stem]))


def oddities(caption: str) -> Iterator[str]:
    """What is odd about a caption, though it may be meant."""
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


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())
