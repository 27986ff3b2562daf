"""What a collection consists of at an address: the names of its files, and tars of its images."""

import hashlib
import io
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection.records import file_sha256
from dreamloom.scrape.collection.schema import Row, Table

SHARD_BYTES = 256 * 2**20
"""Bytes of images in a shard, from which on the next one is begun."""
_BLOCK = tarfile.BLOCKSIZE
_TABLE = re.compile(rf"({'|'.join([*Table, 'decisions'])})/\w+\.parquet")
_SHARD_INDEX = re.compile(r"shards/\w+\.parquet")
_IMAGE = re.compile(r"images/\w+/\w[\w.-]*")
INDEX = pa.schema([("image", pa.string()), ("shard", pa.string()), ("offset", pa.int64()), ("bytes", pa.int64())])
"""What the index of a part's shards says of each image."""

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
