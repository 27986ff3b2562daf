"""A collection that is worked on at an address: what shards.py describes, and a folder for what is under way.

    collection.json                  the files, and who works on which part (dreamloom.base.sharing.store_workers)
    scores/00000-<hash>.parquet      a part of a table; its name tells its content, so nothing is ever overwritten
    shards/00000-<hash>-000.tar      images of part 00000

A part is committed by one change of collection.json, when all its files are there. What a killed process left is named
nowhere, and counts for nothing.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit, copy, make_folder, remove_leftovers
from dreamloom.base.files.own_folders import COLLECTION_MANIFEST
from dreamloom.base.files.remote import Store
from dreamloom.base.files.remote_files import SHARD_CACHE_GB, list_files, read_range, whole_file
from dreamloom.base.sharing.shared_document import Content, SharedDocument
from dreamloom.base.sharing.store_workers import StoreWorker, work_at
from dreamloom.base.sharing.workers import Work
from dreamloom.base.tables.parquet_metadata import metadata_of, write_table
from dreamloom.base.versions import TABLES
from dreamloom.scrape.collection.packing import (
    INDEX,
    SHARDS,
    Files,
    ImagePlace,
    describe,
    files_of_parts,
    is_index,
    is_table,
    object_of,
    pack_images,
    read_places,
    stored_rows,
)
from dreamloom.scrape.collection.schema import Table
from dreamloom.scrape.collection.store_cache import tables_of

_UNUSED_S = 86_400
"""Seconds after which a part in the cache goes that the collection has no more."""
_SHA256 = re.compile("[0-9a-f]{64}")


class StorePlace:
    """An address in a store.

    Args:
        address: of the collection.
        root: `folder_of` it.

    Raises:
        UserError: there is no file system for it, or dreamloom can't work on collections there.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.address, self._root, self._cache = address, root, tables_of(address)
        self._store = Store(address)
        begin = {"schema": TABLES.version, "name": root.name, "files": {}}
        self._document = SharedDocument(address, COLLECTION_MANIFEST, begin)
        self._worker: StoreWorker | None = None
        self._metadata: dict[str, dict[str, str]] = {}
        self._guard, self._knows_shards = threading.Lock(), False
        self._kept_to: Files | None = None
        self._read_places = lru_cache(maxsize=4)(read_places)

    @property
    def _files(self) -> Files:
        return self._checked(self._document.glance()) if self._kept_to is None else self._kept_to

    def keep_to(self, files: Files) -> None:
        """Reads only these files from now on, whatever others write."""
        self._kept_to = files

    def fetch_tables(self) -> None:
        """Fetches the tables that are not in the cache, and removes from it what the collection has no more.

        Raises:
            UserError: one can't be read, or is not what was put there.
        """
        for name in filter(lambda name: is_table(name) or is_index(name), self._files):
            table, _, file = name.partition("/")
            self.path(table, file.removesuffix(".parquet"))
        self._forget_old_tables()

    def _checked(self, content: Content) -> Files:
        TABLES.check(content.get("schema"), Path(self.address) / COLLECTION_MANIFEST)
        files: Files = content["files"]
        return files

    def refresh(self) -> None:
        """Sees what other processes have written since."""
        self._checked(self._document.read())
        self._knows_shards = False

    @contextlib.contextmanager
    def work(self, work: Work | None) -> Iterator[StoreWorker]:
        """Works here; see dreamloom.base.sharing.store_workers.work_at."""
        self.refresh()
        make_folder(self._root)
        with work_at(self._document, work) as worker:
            outer, self._worker = self._worker, worker
            self._forget_old_tables()
            try:
                yield worker
            finally:
                self._worker = outer

    def _forget_old_tables(self) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._cache)  # by which `clean` knows when it was last used
        named = {described["sha256"] for described in self._files.values()}
        for file in self._cache.glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):  # another process does so, too
                if file.stem not in named and file.stat().st_mtime < time.time() - _UNUSED_S:
                    file.unlink()

    # Tables

    def parts(self, table: str) -> list[str]:
        """Returns the names of a table's parts, sorted."""
        return sorted(Path(name).stem for name in self._files if name.startswith(f"{table}/") and is_table(name))

    def path(self, table: str, part: str) -> Path:
        """Returns the file of a part in the cache, into which it is fetched; nothing is there if there is no such part.

        Raises:
            UserError: it can't be read, or is not what was put there.
        """
        name = f"{table}/{part}.parquet"
        described = self._files.get(name)
        if described is None:
            return self._root / name
        file = self._cached(described)
        if not file.exists():
            with commit(file, sync=False) as temporary:
                self._store.get(object_of(name, described), temporary)
                if describe(temporary)["sha256"] != described["sha256"]:
                    raise UserError(
                        f"{self.address}/{object_of(name, described)} is not what was put there; `dreamloom collection "
                        f"verify {self.address}` tells more."
                    )
        return file

    def metadata(self, table: str, part: str) -> dict[str, str]:
        """Reads how a part was made: from the cache, or else its footer alone from the store.

        Raises:
            UserError: it can't be read, or was written by a release with another major version of the format.
        """
        name = f"{table}/{part}.parquet"
        described = self._files.get(name)
        if described is None:
            return {}
        known = self._metadata.get(described["sha256"])
        if known is None:
            file = self._cached(described)
            place = object_of(name, described)
            footer = pq.read_metadata(file) if file.exists() else self._store.read_with(place, pq.read_metadata)
            known = self._metadata[described["sha256"]] = metadata_of(footer, Path(self.address) / place)
        return known

    def _cached(self, described: Mapping[str, Any]) -> Path:
        if not _SHA256.fullmatch(described["sha256"]):
            raise UserError(f"{self.address}/{COLLECTION_MANIFEST} is damaged; bring it back from a copy.")
        return self._cache / f"{described['sha256']}.parquet"

    def put(self, table: str, part: str, rows: pa.Table, metadata: Mapping[str, str]) -> None:
        """Writes a part, with the images that its rows name: what is told of it last is collection.json.

        Raises:
            UserError: the store can't be written to, or others took this process for dead.
        """
        with tempfile.TemporaryDirectory(prefix="dreamloom-store-") as temporary:
            file, new = Path(temporary) / "part.parquet", Files()
            write_table(file, rows, metadata)
            if table == Table.RECORDS:
                new |= self._put_images(part, rows, Path(temporary))
            new |= self._put_table(f"{table}/{part}.parquet", file)
        self._commit(table, [part], new)

    def _put_table(self, name: str, file: Path) -> Files:
        described = describe(file)
        described["object"] = f"{name.removesuffix('.parquet')}-{described['sha256'][:16]}.parquet"
        self._store.put_once(file, described["object"])
        if not self._cached(described).exists():
            with commit(self._cached(described), sync=False) as temporary:
                copy(file, temporary)
        return {name: described}

    def remove(self, table: str, parts: Iterable[str]) -> None:
        """Removes parts, and the images of removed records.

        Raises:
            UserError: the store can't be written to, or others took this process for dead.
        """
        gone = list(parts)
        if gone:
            self._commit(table, gone, Files())

    def _commit(self, table: str, parts: Sequence[str], new: Files) -> None:
        """Takes the files of parts out of collection.json, and new ones in; then removes those that nothing names."""
        replaced = set[str]()

        def change(content: Content) -> None:
            if self._worker is not None:
                for part in parts:
                    self._worker.require_lease(content, f"{table}-{part}")
            files = self._checked(content)
            old = {name: files.pop(name) for name in files_of_parts(files, table, parts)}
            replaced.update(object_of(name, described) for name, described in old.items())
            content["files"] = dict(sorted({**files, **new}.items()))

        self._document.change(change)
        for name in replaced - {object_of(name, described) for name, described in new.items()}:
            with contextlib.suppress(UserError):
                self._store.remove(name)
        if table == Table.RECORDS:
            for part in parts:
                shutil.rmtree(self._root / "images" / part, ignore_errors=True)

    # Images

    def begin(self, table: str, part: str) -> None:
        """Gets the folder of a part's images ready: images of records that are made again are unpacked in it.

        Raises:
            UserError: they can't be read.
        """
        remove_leftovers(self._root / "images" / part)
        if table == Table.RECORDS and part in self.parts(table):
            names = list(self._places(part))
            self.bring(names)
            for name in names:
                if isinstance(data := self.image(name), bytes):
                    with commit(self._root / name, sync=False) as temporary:
                        temporary.write_bytes(data)

    def _put_images(self, part: str, rows: pa.Table, temporary: Path) -> Files:
        """Puts the shards of a part's images, unless these very images are there. Returns these files."""
        index, stored = f"{SHARDS}/{part}.parquet", stored_rows(rows)
        stamp = hashlib.blake2b(json.dumps(stored).encode(), digest_size=16).hexdigest()
        if index in self._files:
            metadata = self.metadata(SHARDS, part)
            if metadata.get("images") == stamp:
                return {index: self._files[index], **json.loads(metadata["files"])}
        files, members = Files(), list[dict[str, Any]]()
        for number, (shard, packed) in enumerate(pack_images(stored, self._read_image, temporary)):
            name = f"{SHARDS}/{part}-{stamp[:16]}-{number:03d}.tar"
            self._store.put_once(shard, name)
            files[name] = describe(shard)
            members += [{**member, "shard": name} for member in packed]
            shard.unlink()
        file = temporary / "index.parquet"
        write_table(file, pa.Table.from_pylist(members, schema=INDEX), {"images": stamp, "files": json.dumps(files)})
        return self._put_table(index, file) | files

    def _read_image(self, name: str) -> bytes:
        data = self.image(name)
        return data if isinstance(data, bytes) else data.read_bytes()

    def image(self, name: str) -> Path | bytes:
        """Returns an image, by its name in the records: its bytes, or its file where it is still here.

        Raises:
            UserError: it can't be read.
        """
        file = self._root / name
        place = None if file.is_file() else self.place_of(name)
        return file if place is None else read_range(f"{self.address}/{place[0]}", place[1], place[2])

    def place_of(self, name: str) -> ImagePlace | None:
        """Returns where an image lies below the address; None: it is not there.

        Raises:
            UserError: it can't be told.
        """
        return self._places(Path(name).parent.name).get(name)

    def describe(self, name: str) -> str:
        """Returns where an image should be, for people."""
        place = self.place_of(name)
        return f"{Path(name).name} in {self.address}" + (f"/{place[0]}" if place else "")

    def has_image(self, name: str) -> bool:
        """Tells whether an image is there."""
        return (self._root / name).is_file() or self.place_of(name) is not None

    def bring(self, names: Sequence[str]) -> None:
        """Fetches the shards of images into the cache of shards, as far as it has room.

        Raises:
            UserError: they can't be read.
        """
        if not self._knows_shards:
            list_files(f"{self.address}/{SHARDS}")  # in their present states, whatever this process knew
            self._knows_shards = True
        places = (self.place_of(name) for name in names if not (self._root / name).is_file())
        for shard in dict.fromkeys(place[0] for place in places if place):
            with whole_file(f"{self.address}/{shard}", SHARD_CACHE_GB):
                pass

    def _places(self, part: str) -> Mapping[str, ImagePlace]:
        with self._guard:
            return self._read_places(self.path(SHARDS, part))
