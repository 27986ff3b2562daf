"""A collection at an address, such as s3://bucket/people: its images in tars, and its tables as they are.

records/00000.parquet       a part of a table, as it is
shards/00000-000.tar        images of part 00000, some 256 MB of them; webdataset reads it
shards/00000.parquet        image → its shard, offset and size; put when the part's shards are there
collection.json             the files, with size and hash; put last: without it, the copy is not whole
"""

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit
from dreamloom.base.own_folders import COLLECTION_MANIFEST
from dreamloom.base.parquet_metadata import read_metadata, write_table
from dreamloom.base.progress import Progress, silent
from dreamloom.base.remote import Store
from dreamloom.base.versions import TABLES
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.copying import changed, copying_to, state_of
from dreamloom.scrape.collection.decisions import decision_parts
from dreamloom.scrape.collection.records import file_sha256
from dreamloom.scrape.collection.schema import Row, Status, Table

SHARD_BYTES = 256 * 2**20
"""Bytes of images in a shard, from which on the next one is begun."""
_BLOCK = tarfile.BLOCKSIZE
_TABLE = re.compile(rf"({'|'.join([*Table, 'decisions'])})/\w+\.parquet")
_SHARD_INDEX = re.compile(r"shards/\w+\.parquet")
_IMAGE = re.compile(r"images/\w+/\w[\w.-]*")
_INDEX = pa.schema([("image", pa.string()), ("shard", pa.string()), ("offset", pa.int64()), ("bytes", pa.int64())])

Files = dict[str, dict[str, Any]]
"""Name → bytes and sha256."""


def push_collection(collection: Collection, address: str, progress: Progress = silent) -> None:
    """Copies a collection to an address. After a kill, the parts that are there are not copied again.

    Args:
        collection: is not written to.
        address: of the copy, which does not exist.
        progress: called with the number of images done.

    Raises:
        UserError: a copy is there, the address can't be written to, or the collection is damaged or changed meanwhile.
    """
    store = Store(address)
    if store.has(COLLECTION_MANIFEST):
        raise UserError(f"{address} holds a collection, and stays as it is; name another address.")
    before, files = state_of(collection), Files()
    total, done = collection.summary(Table.RECORDS).kept, 0
    with tempfile.TemporaryDirectory(prefix="dreamloom-copy-") as temporary:
        for part in collection.parts(Table.RECORDS):
            files |= _push_images(collection, part, store, Path(temporary))
            done += collection.summary(Table.RECORDS, part).kept
            progress(done, total, f"part {part}")
    for file in _tables(collection):
        name = file.relative_to(collection.root).as_posix()
        store.put(file, name)
        files[name] = _described(file)
    if state_of(collection) != before:
        raise changed(collection)
    store.put_json(COLLECTION_MANIFEST, {"schema": TABLES.version, "name": collection.name, "files": files})


def _tables(collection: Collection) -> Iterator[Path]:
    for table in Table:
        yield from (collection.part_path(table, part) for part in collection.parts(table))
    yield from decision_parts(collection.root)


def _described(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": file_sha256(file)}


def _push_images(collection: Collection, part: str, store: Store, temporary: Path) -> Files:
    """Puts the shards of a part, and then their index, unless they are there. Returns these files."""
    name, stamp = f"shards/{part}.parquet", collection.stamp(Table.RECORDS, part)
    index = temporary / "index.parquet"
    if store.has(name):
        store.get(name, index)
        metadata = read_metadata(index, "the copy")
        if metadata.get("stamp") == stamp:
            return {**json.loads(metadata["files"]), name: _described(index)}
    files, rows = Files(), list[dict[str, Any]]()
    for number, (shard, members) in enumerate(_make_shards(collection, part, temporary)):
        shard_name = f"shards/{part}-{number:03d}.tar"
        store.put(shard, shard_name)
        files[shard_name] = _described(shard)
        rows += [{**member, "shard": shard_name} for member in members]
        shard.unlink()
    write_table(index, pa.Table.from_pylist(rows, schema=_INDEX), {"stamp": stamp, "files": json.dumps(files)})
    store.put(index, name)
    return {**files, name: _described(index)}


def _make_shards(collection: Collection, part: str, temporary: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Yields tars of a part's images, each with image, offset and bytes of its members.

    Raises:
        UserError: an image is not as it was stored.
    """
    columns = ["status", "image", "bytes", "image_sha256"]
    rows = [row for row in collection.read(Table.RECORDS, part, columns).to_pylist() if row["status"] == Status.OK]
    while rows:
        file, members = temporary / "shard.tar", list[dict[str, Any]]()
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
            while rows and tar.offset < SHARD_BYTES:
                row = rows.pop(0)
                data = _read_image(collection, row)
                member = tarfile.TarInfo(Path(row["image"]).name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
                offset = tar.offset - -(-len(data) // _BLOCK) * _BLOCK
                members.append({"image": row["image"], "offset": offset, "bytes": len(data)})
        yield file, members


def _read_image(collection: Collection, row: Row) -> bytes:
    file: Path = collection.root / row["image"]
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); `dreamloom collection verify` tells more.") from None
    if row["image_sha256"] not in (None, hashlib.sha256(data).hexdigest()):
        raise UserError(f"{file} has other bytes than its records say; `dreamloom collection verify` tells more.")
    return data


def read_manifest(store: Store) -> Files:
    """Returns the files of a copy.

    Raises:
        UserError: there is none, it is not whole, or a newer release wrote it in another way.
    """
    if not store.has(COLLECTION_MANIFEST):
        raise UserError(
            f"{store.address} holds no collection, or one that is not whole; `dreamloom collection copy FOLDER "
            f"{store.address}` makes it, or goes on."
        )
    manifest = store.get_json(COLLECTION_MANIFEST)
    TABLES.check(manifest.get("schema"), Path(store.address) / COLLECTION_MANIFEST)
    return dict(manifest["files"])


def is_table(name: str) -> bool:
    """Tells whether a file of a copy is a part of a table."""
    return _TABLE.fullmatch(name) is not None


def is_index(name: str) -> bool:
    """Tells whether a file of a copy says where the images of a part are."""
    return _SHARD_INDEX.fullmatch(name) is not None


def pull_collection(address: str, to: Path, progress: Progress = silent) -> None:
    """Copies a collection from an address to a folder, and checks it. A killed copy is gone on with.

    Args:
        address: of the collection.
        to: the folder to make.
        progress: called with the number of files done.

    Raises:
        UserError: `to` exists; there is no collection at the address, it can't be read, or is damaged.
    """
    store = Store(address)
    files = read_manifest(store)
    tables, indexes = list(filter(is_table, files)), list(filter(is_index, files))
    with copying_to(to, address) as partial:
        for done, name in enumerate(tables, 1):
            target = partial / name
            if not (target.is_file() and _described(target) == files[name]):
                with commit(target, sync=False) as temporary:
                    store.get(name, temporary)
            progress(done, len(tables) + len(indexes))
        with tempfile.TemporaryDirectory(prefix="dreamloom-copy-") as temporary:
            for done, name in enumerate(indexes, len(tables) + 1):
                _pull_images(store, name, partial, Path(temporary))
                progress(done, len(tables) + len(indexes))


def _pull_images(store: Store, index: str, root: Path, temporary: Path) -> None:
    """Takes the images of a part out of its shards, unless they are there."""
    store.get(index, temporary / "index.parquet")
    missing: dict[str, list[Mapping[str, Any]]] = {}
    for row in pq.read_table(temporary / "index.parquet", partitioning=None).to_pylist():
        file = root / row["image"]
        if not _IMAGE.fullmatch(row["image"]):
            raise UserError(f"{store.address}/{index} names an image {row['image']!r}, which is none; copy it anew.")
        if not (file.is_file() and file.stat().st_size == row["bytes"]):
            missing.setdefault(row["shard"], []).append(row)
    for shard, rows in missing.items():
        store.get(shard, temporary / "shard.tar")
        with open(temporary / "shard.tar", "rb") as stream:
            for row in rows:
                stream.seek(row["offset"])
                with commit(root / row["image"], sync=False) as target:
                    target.write_bytes(stream.read(row["bytes"]))


def find_damage_at(address: str, progress: Progress = silent) -> Iterator[tuple[str, str]]:
    """Yields each file of a copy at an address that is not what was put there, with what is amiss; reads every byte.

    Raises:
        UserError: there is no copy, or it can't be read.
    """
    store = Store(address)
    files = read_manifest(store)
    for done, (name, wanted) in enumerate(files.items(), 1):
        found = store.sha256(name)
        if found is None:
            yield name, "is not there"
        elif found != wanted["sha256"]:
            yield name, "has other bytes than were put there"
        progress(done, len(files))
