"""A collection of others, which is only read: a folder, or an address to which `push_collection` copied it.

    <cache>/collections/<address>/<manifest>/     records/, scores/, …, shards/: the tables of one at an address

Tables come into the user's cache, once for each state of the collection; images are read from their shards.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from dreamloom.base.cache_folder import cache_folder
from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_folder, copy
from dreamloom.base.remote import Store, address_of
from dreamloom.base.remote_files import SHARD_CACHE_GB, list_files, read_range, whole_file
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.packing import is_index, is_table, object_of
from dreamloom.scrape.collection.shards import read_manifest

_FOLDER = "collections"

Place = tuple[str, int, int]
"""The address of an image's shard, its first byte there, and its size."""


def open_library(path: Path) -> Collection:
    """Opens a collection to read its tables; those of one at an address are fetched if they are not in the cache.

    Raises:
        UserError: there is no whole collection at the address, it can't be read, or is damaged.
    """
    address = address_of(path)
    if address is None:
        return Collection(path)
    store = Store(address)
    files = read_manifest(store)
    content = hashlib.blake2b(json.dumps(files, sort_keys=True).encode(), digest_size=16).hexdigest()
    root = _copies(address) / content
    if not root.is_dir():
        with commit_folder(root) as folder:
            (folder / "images").mkdir()
            for name in filter(lambda name: is_table(name) or is_index(name), files):
                (folder / name).parent.mkdir(exist_ok=True)
                store.get(object_of(name, files[name]), folder / name)
                if (folder / name).stat().st_size != files[name]["bytes"]:
                    raise UserError(f"{address}/{name} is not what was put there; `dreamloom collection verify` it.")
        for other in _copies(address).glob("[!.]*"):
            if other != root:  # of a state that is gone
                shutil.rmtree(other, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.utime(root)  # by which `clean` knows when it was last used
    return Collection(root)


def unused_copies(used: Sequence[Path]) -> list[Path]:
    """Returns the folders in the cache that hold tables of collections at addresses, one for each address.

    Args:
        used: collections, folders or addresses, whose copies are left out.
    """
    kept = {_copies(address) for address in map(address_of, used) if address is not None}
    return sorted(folder for folder in (cache_folder() / _FOLDER).glob("[!.]*/") if folder not in kept)


def copies_of(path: Path) -> list[Path]:
    """Returns the folders that hold the tables of a collection: itself, or those in the cache; asks no store."""
    address = address_of(path)
    return [path] if address is None else sorted(_copies(address).glob("[!.]*"))


def _copies(address: str) -> Path:
    return cache_folder() / _FOLDER / hashlib.blake2b(address.encode(), digest_size=16).hexdigest()


class LibraryImages:
    """The images of a part of a library.

    Args:
        path: the folder or the address of the library.
        library: what `open_library` returned for it.
        part: the part.
        missing: the names of the images that will be asked for; their shards are fetched.

    Raises:
        UserError: an address can't be read.
    """

    def __init__(self, path: Path, library: Collection, part: str, missing: Sequence[str]) -> None:
        address = address_of(path)
        self.where = address or str(path)
        self._folder = library.image_folder(part)
        self._places: dict[str, Place] | None = None
        if address:
            rows = pq.read_table(library.root / "shards" / f"{part}.parquet", partitioning=None).to_pylist()
            self._places = {
                Path(row["image"]).name: (f"{address}/{row['shard']}", row["offset"], row["bytes"]) for row in rows
            }
            list_files(f"{address}/shards")
            for shard in dict.fromkeys(self._places[name][0] for name in missing if name in self._places):
                with whole_file(shard, SHARD_CACHE_GB):
                    pass

    def describe(self, name: str) -> str:
        """Returns where an image should be."""
        if self._places is None:
            return str(self._folder / name)
        return f"{name} in {self._places[name][0] if name in self._places else self.where}"

    def copy(self, name: str, target: Path) -> None:
        """Copies an image to a file.

        Raises:
            FileNotFoundError: it is not there.
            UserError: its shard can't be read.
        """
        if self._places is None:
            copy(self._folder / name, target)
            return
        with contextlib.suppress(KeyError):
            target.write_bytes(read_range(*self._places[name]))
            return
        raise FileNotFoundError(name)
