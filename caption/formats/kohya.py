"""kohya's sd-scripts: one JSON for a folder of images; see dreamloom.scrape.datasets.kohya."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamloom.caption.formats.rows import Names, Note, Row, pictures
from dreamloom.caption.formats.target import Target
from dreamloom.scrape.datasets.kohya import METADATA, read_metadata


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Pictures with the captions of the folder's JSON.

    Raises:
        UserError: there is no such JSON, or it can't be read.
    """
    found = list(pictures(folder))
    said = read_metadata(folder, [picture.name for picture in found])
    for key in said.others:
        note("entry without an picture", f"{said.path}: {key}")
    for picture in found:
        yield Row(picture.name, said.captions.get(picture.name), picture.file)


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Pictures under their own names, and last the JSON."""
    names, entries = Names(), {}
    for done, row in enumerate(rows, 1):
        name = names.name(row.name)
        if target.picture(row, name):
            entries[os.path.splitext(name)[0]] = {"caption": row.caption}
        yield done
    target.text(METADATA[0], json.dumps(entries, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
