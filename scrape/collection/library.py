"""A collection of others, which is only read: a folder, or an address.

    <cache>/stores/<address>/tables/.library.json     the files of one at an address, as it was when last opened

Its tables come into the cache of the collections at addresses (store_place.py), once each; images are read from shards.
"""

import json
from pathlib import Path

from dreamloom.base.files.atomic import commit_json
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.base.files.remote import Store, address_of
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.shards import read_manifest
from dreamloom.scrape.collection.store_cache import tables_of
from dreamloom.scrape.collection.store_place import StorePlace

_NOTE = ".library.json"


def open_library(path: Path) -> Collection:
    """Opens a collection to read it; one at an address as it is now, whatever is written there meanwhile.

    Raises:
        UserError: there is no whole collection at the address, it can't be read, or is damaged.
    """
    library, address = Collection(path), address_of(path)
    if address is not None and isinstance(library.place, StorePlace):
        files = read_manifest(Store(address))
        library.place.keep_to(files)
        library.place.fetch_tables()
        commit_json(tables_of(address) / _NOTE, files)
    return library


def known_library(path: Path) -> Collection | None:
    """Returns the collection at a path; one at an address as it was when it was last opened, and asks no store.

    Returns:
        None: there is none, or it was never opened.
    """
    library, address = Collection(path), address_of(path)
    if address is None:
        return library if own_folder_kind(path) == "collection" else None
    note = tables_of(address) / _NOTE
    if note.is_file() and isinstance(library.place, StorePlace):
        library.place.keep_to(json.loads(note.read_text(encoding="utf-8")))
        return library
    return None
