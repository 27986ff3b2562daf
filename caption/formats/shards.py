"""webdataset: tar files of at most 10,000 images, each with its caption as .txt and what else is known as .json.

Written as img2dataset writes them (https://github.com/rom1504/img2dataset): 00000.tar holds 000000000.jpg, .txt and
.json, the key of a sample being the shard's number and the image's. Read as
scrape.datasets.webdataset reads all of that kind.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dreamloom.base.image_types import IMAGE_EXTENSIONS
from dreamloom.base.pixels import ImageError
from dreamloom.caption.formats.rows import Note, Row, safe
from dreamloom.caption.formats.target import SKIPPED, Target
from dreamloom.caption.sidecar import decode_text, encode_text
from dreamloom.scrape.datasets.webdataset import Sample, WebdatasetConfig, find_shards, read_shard

SHARD_PICTURES = 10_000


def read(folder: Path, note: Note) -> Iterator[Row]:
    """The images of a folder's shards, with the caption of their .txt, else of their .json or the shard's table.

    Of a shard that breaks off, the images before that are taken.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    for shard in find_shards(WebdatasetConfig(path=folder)):
        for sample in read_shard(shard, partial(note, "shard that is broken")):
            if sample.image_extension is None:
                note("sample without an picture", f"{shard}: {sample.key}")
                continue
            place = sample.members[sample.image_extension]
            yield Row(_name(sample), _caption(sample, note), str(shard), place, _facts(sample))


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Shards of SHARD_PICTURES images, in order."""
    for number, start in enumerate(range(0, len(rows), SHARD_PICTURES)):
        some = rows[start : start + SHARD_PICTURES]
        target.whole(f"{number:05d}.tar", partial(_write_shard, number, some, target))
        yield start + len(some)


def _write_shard(number: int, rows: Sequence[Row], target: Target, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for place, row in enumerate(rows):
            try:
                data = row.read()
            except OSError as error:
                target.log(SKIPPED, row.name, "picture can't be read or named", error.strerror or "")
                continue
            key, extension = f"{number:05d}{place:04d}", os.path.splitext(row.name)[1].lower()
            facts = {**row.facts, "key": key, "caption": row.caption, "file_name": row.name}
            _add(archive, f"{key}{extension}", data)
            _add(archive, f"{key}.txt", encode_text(row.caption or ""))
            _add(archive, f"{key}.json", json.dumps(facts, default=str).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # with no time and no owner, so that the same rows make the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _caption(sample: Sample, note: Note) -> str | None:
    try:
        if "txt" in sample.members:
            text, encoding = decode_text(sample.read("txt"))
            if encoding != "UTF-8":
                note(f"sidecar in {encoding}", f"{sample.shard}: {sample.key}")
            return text
    except ImageError:
        note("sidecar that can't be read", f"{sample.shard}: {sample.key}")
    said = sample.metadata.get("caption")
    return said if isinstance(said, str) else None


def _facts(sample: Sample) -> dict[str, Any]:
    return {
        name: value for name, value in sample.metadata.items() if name not in ("key", "caption", "file_name", "__key__")
    }


def _name(sample: Sample) -> str:
    """The name that the image had before, where the shard knows it; else its key."""
    before = sample.metadata.get("file_name")
    if isinstance(before, str) and os.path.splitext(before)[1].lower() in IMAGE_EXTENSIONS:
        return safe(before)
    return safe(f"{sample.key}.{sample.image_extension}")
