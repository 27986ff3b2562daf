"""The conventions by which people keep images and captions together; each module reads and writes one.

A format has two verbs: `read` gives the rows of a folder, `write` puts rows into a target. What was written is read
again as it was, whatever the captions say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dreamloom.caption.formats import collection, imagefolder, kohya, names, shards, sidecars
from dreamloom.caption.formats.rows import Note, Row
from dreamloom.caption.formats.target import Target

FormatName = Literal["filename", "txt", "caption", "yaml", "kohya", "imagefolder", "webdataset"]
SourceName = Literal[FormatName, "collection"]

Read = Callable[[Path, Note], Iterator[Row]]
"""A folder's images in order, also those without a caption. What is odd is noted; UserError: it is no such folder."""


@dataclass(frozen=True)
class Format:
    """One convention."""

    name: FormatName
    read: Read
    write: Callable[[Sequence[Row], Target], Iterator[int]]
    """Puts rows, all with captions, into a target, again and again the same way; yields how many are done."""
    beside: bool = False
    """Its captions lie one a file beside the images, so that they can be added to a folder that is there."""
    keeps_folder: bool = True
    """Its images lie in folders, so that EveryDream's control files can lie there, too."""


FORMATS: dict[str, Format] = {
    each.name: each
    for each in [
        Format("filename", names.read, names.write),
        Format("txt", partial(sidecars.read, (".txt",)), partial(sidecars.write, ".txt"), beside=True),
        Format("caption", partial(sidecars.read, (".caption",)), partial(sidecars.write, ".caption"), beside=True),
        Format("yaml", partial(sidecars.read, (".yaml", ".yml")), partial(sidecars.write, ".yaml"), beside=True),
        Format("kohya", kohya.read, kohya.write),
        Format("imagefolder", imagefolder.read, imagefolder.write),
        Format("webdataset", shards.read, shards.write, keeps_folder=False),
    ]
}
"""By the names that the command line has for them."""

SOURCES: dict[str, Read] = {name: each.read for name, each in FORMATS.items()} | {"collection": collection.read}
"""What can be read. To write a collection is to ingest."""
