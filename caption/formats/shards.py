"""webdataset: tar files of at most 10,000 images, each with its caption as .txt and its metadata as .json.

Written as img2dataset writes them (https://github.com/rom1504/img2dataset): 00000.tar contains 000000000.jpg, .txt and
.json; the key of a sample is the number of its shard and its own. Read by dreamloom.scrape.datasets.webdataset.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dreamloom.base.files.image_types import IMAGE_EXTENSIONS
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.tables.documents import decode_with_encoding
from dreamloom.caption.formats.rows import Note, Row, sanitize
from dreamloom.caption.formats.target import SKIPPED, Target
from dreamloom.caption.sidecar_writer import encode_text
from dreamloom.scrape.datasets.shard_files import find_shards
from dreamloom.scrape.datasets.webdataset import (
    Sample,
    read_sample_caption,
    read_shard,
)

SHARD_IMAGES = 10_000
"""Maximum images per shard."""


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Reads the images of a folder's shards, with captions from their .txt, else from their .json or the shard's table.

    Of a truncated shard, the images before the break are read.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    for shard in find_shards(folder):
        for sample in read_shard(shard, partial(note, "shard that is broken")):
            if sample.image_extension is None:
                note("sample without an image", f"{shard}: {sample.key}")
                continue
            span = sample.members[sample.image_extension]
            yield Row(_name(sample), _caption(sample, note), str(shard), span, _metadata(sample))


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Writes shards of SHARD_IMAGES images, in order."""
    for number, start in enumerate(range(0, len(rows), SHARD_IMAGES)):
        shard_rows = rows[start : start + SHARD_IMAGES]
        target.add_file(f"{number:05d}.tar", partial(_write_shard, number, shard_rows, target))
        yield start + len(shard_rows)


def _write_shard(number: int, rows: Sequence[Row], target: Target, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for index, row in enumerate(rows):
            try:
                data = row.read()
            except OSError as error:
                target.log(SKIPPED, row.name, "image can't be read or named", error.strerror or "")
                continue
            key, extension = f"{number:05d}{index:04d}", os.path.splitext(row.name)[1].lower()
            metadata = {**row.metadata, "key": key, "caption": row.caption, "file_name": row.name}
            _add(archive, f"{key}{extension}", data)
            _add(archive, f"{key}.txt", encode_text(row.caption or ""))
            _add(archive, f"{key}.json", json.dumps(metadata, default=str).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # with no time and no owner, so that the same rows make the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _caption(sample: Sample, note: Note) -> str | None:
    """Returns the caption, as the stages read it; where all are blank, that of the .txt, if there is one."""
    text = None
    try:
        if "txt" in sample.members:
            text, encoding = decode_with_encoding(sample.read("txt"))
            if encoding != "UTF-8":
                note(f"sidecar in {encoding}", f"{sample.shard}: {sample.key}")
    except ImageError:
        note("sidecar that can't be read", f"{sample.shard}: {sample.key}")
    return read_sample_caption(sample) or text


def _metadata(sample: Sample) -> dict[str, Any]:
    return {
        name: value for name, value in sample.metadata.items() if name not in ("key", "caption", "file_name", "__key__")
    }


def _name(sample: Sample) -> str:
    """Returns the name that the image had before, if the shard has it; else its key."""
    original = sample.metadata.get("file_name")
    if isinstance(original, str) and os.path.splitext(original)[1].lower() in IMAGE_EXTENSIONS:
        return sanitize(original)
    return sanitize(f"{sample.key}.{sample.image_extension}")
