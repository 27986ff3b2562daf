"""A collection at an address, such as s3://bucket/people: its images in tars, and its tables as they are.

records/00000.parquet       a part of a table, as it is
shards/00000-000.tar        images of part 00000, some 256 MB of them; webdataset reads it
shards/00000.parquet        image → its shard, offset and size; put when the part's shards are there
collection.json             the files, with size and hash; put last: without it, the copy is not whole
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit
from dreamloom.base.files.own_folders import COLLECTION_MANIFEST
from dreamloom.base.files.remote import Store
from dreamloom.base.progress import Progress, silent
from dreamloom.base.tables.parquet_metadata import read_metadata, write_table
from dreamloom.base.versions import TABLES
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.copying import changed, copying_to, state_of
from dreamloom.scrape.collection.decisions import decision_parts
from dreamloom.scrape.collection.packing import (
    INDEX,
    Files,
    describe,
    is_image,
    is_index,
    is_table,
    object_of,
    pack_images,
    stored_rows,
)
from dreamloom.scrape.collection.schema import Table


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
    _refuse_existing(store)
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
        files[name] = describe(file)
    if state_of(collection) != before:
        raise changed(collection)
    _put_manifest(store, collection.name, files)


def _tables(collection: Collection) -> Iterator[Path]:
    for table in Table:
        yield from (collection.part_path(table, part) for part in collection.parts(table))
    yield from decision_parts(collection.root)


def _push_images(collection: Collection, part: str, store: Store, temporary: Path) -> Files:
    """Puts the shards of a part, and then their index, unless they are there. Returns these files."""
    name, stamp = f"shards/{part}.parquet", collection.stamp(Table.RECORDS, part)
    index = temporary / "index.parquet"
    if store.has(name):
        store.get(name, index)
        metadata = read_metadata(index, "the copy")
        if metadata.get("stamp") == stamp:
            return {**json.loads(metadata["files"]), name: describe(index)}
    stored = stored_rows(collection.read(Table.RECORDS, part))
    files, rows = Files(), list[dict[str, Any]]()
    for number, (shard, members) in enumerate(pack_images(stored, partial(_read_file, collection.root), temporary)):
        shard_name = f"shards/{part}-{number:03d}.tar"
        store.put(shard, shard_name)
        files[shard_name] = describe(shard)
        rows += [{**member, "shard": shard_name} for member in members]
        shard.unlink()
    write_table(index, pa.Table.from_pylist(rows, schema=INDEX), {"stamp": stamp, "files": json.dumps(files)})
    store.put(index, name)
    return {**files, name: describe(index)}


def _read_file(root: Path, image: str) -> bytes:
    file = root / image
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); `dreamloom collection verify` tells more.") from None


def read_manifest(store: Store) -> Files:
    """Returns the files of a copy.

    Raises:
        UserError: there is none, it is not whole, or a newer release wrote it in another way.
    """
    manifest = store.get_json(COLLECTION_MANIFEST) if store.has(COLLECTION_MANIFEST) else {}
    if not manifest.get("files"):
        raise UserError(
            f"{store.address} holds no collection, or one that is not whole; `dreamloom collection copy FOLDER "
            f"{store.address}` makes it, or goes on."
        )
    TABLES.check(manifest.get("schema"), Path(store.address) / COLLECTION_MANIFEST)
    return dict(manifest["files"])


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
    with copying_to(to, address) as root:
        for done, name in enumerate(tables, 1):
            target = root / name
            if not (target.is_file() and describe(target)["sha256"] == files[name]["sha256"]):
                with commit(target, sync=False) as temporary:
                    store.get(object_of(name, files[name]), temporary)
            progress(done, len(tables) + len(indexes))
        with tempfile.TemporaryDirectory(prefix="dreamloom-copy-") as temporary:
            for done, name in enumerate(indexes, len(tables) + 1):
                _pull_images(store, object_of(name, files[name]), root, Path(temporary))
                progress(done, len(tables) + len(indexes))


def _pull_images(store: Store, index: str, root: Path, temporary: Path) -> None:
    """Takes the images of a part out of its shards, unless they are there."""
    store.get(index, temporary / "index.parquet")
    missing: dict[str, list[Mapping[str, Any]]] = {}
    for row in pq.read_table(temporary / "index.parquet", partitioning=None).to_pylist():
        file = root / row["image"]
        if not is_image(row["image"]):
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


def copy_between(source: str, target: str, progress: Progress = silent) -> None:
    """Copies a collection from one address to another, file by file. A killed copy is gone on with.

    Args:
        source: address of the collection.
        target: address of the copy, which does not exist.
        progress: called with the number of files done.

    Raises:
        UserError: a copy is there; there is no collection at `source`, it can't be read, or is damaged; or `target`
            can't be written to.
    """
    origin, store = Store(source), Store(target)
    files = read_manifest(origin)
    _refuse_existing(store)
    with tempfile.TemporaryDirectory(prefix="dreamloom-copy-") as temporary:
        file = Path(temporary) / "file"
        for done, (name, wanted) in enumerate(files.items(), 1):
            place = object_of(name, wanted)
            if store.sha256(place) != wanted["sha256"]:
                origin.get(place, file)
                if describe(file)["sha256"] != wanted["sha256"]:
                    raise UserError(f"{source}/{place} is not what was put there; `dreamloom collection verify` it.")
                store.put(file, place)
            progress(done, len(files))
    _put_manifest(store, Path(target).name, files)


def _refuse_existing(store: Store) -> None:
    if store.has(COLLECTION_MANIFEST) and store.get_json(COLLECTION_MANIFEST).get("files"):
        raise UserError(f"{store.address} holds a collection, and stays as it is; name another address.")


def _put_manifest(store: Store, name: str, files: Files) -> None:
    store.put_json(COLLECTION_MANIFEST, {"schema": TABLES.version, "name": name, "files": files})


def find_damage_at(address: str, progress: Progress = silent) -> Iterator[tuple[str, str]]:
    """Yields each file of a copy at an address that is not what was put there, with what is amiss; reads every byte.

    Raises:
        UserError: there is no copy, or it can't be read.
    """
    store = Store(address)
    files = read_manifest(store)
    for done, (name, wanted) in enumerate(files.items(), 1):
        found = store.sha256(object_of(name, wanted))
        if found is None:
            yield name, "is not there"
        elif found != wanted["sha256"]:
            yield name, "has other bytes than were put there"
        progress(done, len(files))
