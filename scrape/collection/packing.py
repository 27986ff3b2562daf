"""What a collection consists of at an address: the names of its files, and tars of its images."""

import hashlib
import io
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection.records import file_sha256
from dreamloom.scrape.collection.schema import Row, Status, Table

SHARD_BYTES = 256 * 2**20
"""Bytes of images in a shard, from which on the next one is begun."""
_BLOCK = tarfile.BLOCKSIZE
_TABLE = re.compile(rf"({'|'.join([*Table, 'decisions'])})/\w+\.parquet")
_SHARD_INDEX = re.compile(r"shards/\w+\.parquet")
_IMAGE = re.compile(r"images/\w+/\w[\w.-]*")
INDEX = pa.schema([("image", pa.string()), ("shard", pa.string()), ("offset", pa.int64()), ("bytes", pa.int64())])
"""What the index of a part's shards says of each image."""

SHARDS = "shards"
"""The folder of shards, and of the index of each part's."""

ImagePlace = tuple[str, int, int]
"""An image's shard, its first byte there, and its size."""

Files = dict[str, dict[str, Any]]
"""Name → bytes and sha256; and object, its file at the address, where that has another name."""


def describe(file: Path) -> dict[str, Any]:
    """Returns bytes and sha256 of a file, for `Files`."""
    return {"bytes": file.stat().st_size, "sha256": file_sha256(file)}


def object_of(name: str, described: Mapping[str, Any]) -> str:
    """Returns the path at the address of a file in `Files`."""
    return str(described.get("object", name))


def is_table(name: str) -> bool:
    """Tells whether a file of a copy is a part of a table."""
    return _TABLE.fullmatch(name) is not None


def is_image(name: str) -> bool:
    """Tells whether a name in an index is one that an image may have."""
    return _IMAGE.fullmatch(name) is not None


def is_index(name: str) -> bool:
    """Tells whether a file of a copy says where the images of a part are."""
    return _SHARD_INDEX.fullmatch(name) is not None


def pack_images(
    records: Iterable[Row], read: Callable[[str], bytes], temporary: Path
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Yields tars of images, each with image, offset and bytes of its members. Equal images give equal bytes.

    Args:
        records: image, bytes and image_sha256 of each image.
        read: returns the bytes of an image, by its name in the records.
        temporary: a folder, in which each tar lies until the next one.

    Raises:
        UserError: an image is not as it was stored.
    """
    rows = deque(records)
    while rows:
        file, members = temporary / "shard.tar", list[dict[str, Any]]()
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
            while rows and tar.offset < SHARD_BYTES:
                row = rows.popleft()
                data = _compared(row, read(row["image"]))
                member = tarfile.TarInfo(Path(row["image"]).name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
                offset = tar.offset - -(-len(data) // _BLOCK) * _BLOCK
                members.append({"image": row["image"], "offset": offset, "bytes": len(data)})
        yield file, members


def _compared(row: Row, data: bytes) -> bytes:
    if row["image_sha256"] not in (None, hashlib.sha256(data).hexdigest()):
        raise UserError(
            f"{row['image']} has other bytes than its records say; `dreamloom collection verify` tells more."
        )
    return data


def read_places(index: Path) -> Mapping[str, ImagePlace]:
    """Reads where the images of a part lie, by their names in the records; empty where there is no index.

    Raises:
        UserError: it names something else than an image.
    """
    rows = pq.read_table(index, partitioning=None).to_pylist() if index.exists() else []
    if strange := next((row["image"] for row in rows if not is_image(row["image"])), None):
        raise UserError(f"An index of shards names an image {strange!r}, which is none; copy the collection anew.")
    return {row["image"]: (row["shard"], row["offset"], row["bytes"]) for row in rows}


def stored_rows(rows: pa.Table) -> list[Row]:
    """Returns what `pack_images` needs of the records that have an image."""
    columns = rows.select(["status", "image", "bytes", "image_sha256"]).to_pylist()
    return [row for row in columns if row["status"] == Status.OK]


def files_of_parts(files: Files, table: str, parts: Sequence[str]) -> list[str]:
    """Returns the files of parts, with the shards of records."""
    names = {f"{table}/{part}.parquet" for part in parts}
    if table != Table.RECORDS:
        return [name for name in files if name in names]
    names |= {f"{SHARDS}/{part}.parquet" for part in parts}
    of_part = tuple(f"{SHARDS}/{part}-" for part in parts)
    return [name for name in files if name in names or name.startswith(of_part)]
