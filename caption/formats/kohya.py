"""kohya's sd-scripts: one JSON for a folder of images; see dreamloom.scrape.datasets.kohya."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamloom.caption.formats.rows import Note, Row, UniqueNames, list_images
from dreamloom.caption.formats.target import Target
from dreamloom.scrape.datasets.kohya import METADATA, match_metadata, read_metadata

__all__ = ["METADATA", "match_metadata", "read", "write"]


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Reads images with the captions of the folder's JSON.

    Raises:
        UserError: the JSON is missing or unreadable.
    """
    images = list(list_images(folder))
    metadata = read_metadata(folder, [image.name for image in images])
    for key in metadata.others:
        note("entry without an image", f"{metadata.path}: {key}")
    for image in images:
        yield Row(image.name, metadata.captions.get(image.name), image.file)


def write(rows: Sequence[Row], target: Target, relative: bool = False) -> Iterator[int]:
    """Writes images under their own names, and last the JSON.

    Args:
        rows: the images with their captions.
        target: the folder.
        relative: the keys are paths inside the folder, which its trainer joins to `image_dir`; else whole paths, as
            with `--full_path` of its tools, which it opens from anywhere.
    """
    names, entries = UniqueNames(), {}
    start = "" if relative else f"{os.path.abspath(target.folder)}/"
    for done, row in enumerate(rows, 1):
        name = names.assign(row.name)
        if target.add_image(row, name):
            entries[start + name] = {"caption": row.caption}
            if "\n" in (row.caption or "").strip():
                target.log.note("caption of several lines, of which kohya's trainer reads the first", name)
        yield done
    target.add_text(METADATA[0], json.dumps(entries, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
