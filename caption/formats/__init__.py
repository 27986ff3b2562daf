"""The formats in which people keep images with captions. A new one is a file beside these, and a line in FORMATS.

A format has two verbs: `read` yields the rows of a folder, `write` puts rows into a target. What was written is read
unchanged, whatever the captions say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dreamloom.caption.formats import collection, imagefolder, kohya, names, shards, sidecars
from dreamloom.caption.formats.rows import Note, Row
from dreamloom.caption.formats.target import Target

Read = Callable[[Path, Note], Iterator[Row]]
"""Reads a folder's images in order, including those without a caption, and notes what is odd.

UserError: the folder has another format.
"""


@dataclass(frozen=True)
class Format:
    """A format."""

    name: str
    read: Read
    write: Callable[[Sequence[Row], Target], Iterator[int]]
    """Writes rows, all with captions, into a target, each time the same way; yields how many are done."""
    in_place: bool = False
    """Its captions are sidecars, so that they can be added to an existing folder."""
    keeps_folder: bool = True
    """Its images lie in folders, so that EveryDream's control files can, too."""


FORMATS: dict[str, Format] = {
    format.name: format
    for format in [
        Format("filename", names.read, names.write),
        Format("txt", partial(sidecars.read, (".txt",)), partial(sidecars.write, ".txt"), in_place=True),
        Format("caption", partial(sidecars.read, (".caption",)), partial(sidecars.write, ".caption"), in_place=True),
        Format("yaml", partial(sidecars.read, (".yaml", ".yml")), partial(sidecars.write, ".yaml"), in_place=True),
        Format("kohya", kohya.read, kohya.write),
        Format("kohya-relative", kohya.read, partial(kohya.write, relative=True)),
        Format("imagefolder", imagefolder.read, imagefolder.write),
        Format("webdataset", shards.read, shards.write, keeps_folder=False),
    ]
}
"""Name on the command line → format."""

SOURCES: dict[str, Read] = {name: format.read for name, format in FORMATS.items()} | {"collection": collection.read}
"""Name on the command line → how it is read. A collection is written by ingest."""

if TYPE_CHECKING:
    FormatName = str
    SourceName = str
else:  # the choices of the command line come from the registry
    FormatName = Literal[tuple(FORMATS)]
    SourceName = Literal[tuple(SOURCES)]
