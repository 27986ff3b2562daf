"""Training sets of collections at addresses, whose images stay in these (dreamloom.base.tables.streamed_set).

dataset.parquet         the manifest, with the place of each image
crops/<hash>-000.tar    images of which a decision shows a part only
"""

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import TRAINING_MANIFEST
from dreamloom.base.files.remote import Store
from dreamloom.base.files.remote_files import list_files
from dreamloom.base.tables.parquet_metadata import metadata_of, write_table
from dreamloom.base.tables.streamed_set import PLACES
from dreamloom.curate.crop import write_crop
from dreamloom.curate.place import Placement
from dreamloom.curate.source import Source
from dreamloom.scrape.collection.packing import SHARDS, pack_images
from dreamloom.scrape.collection.records import file_sha256
from dreamloom.scrape.collection.store_place import StorePlace

_CROPS = "crops"
_OURS = re.compile(r"[0-9a-f]{16}-\d{3,}\.tar")
"""Names of shards of crops; nothing else in their folder is ours."""


def is_streamed(sources: Sequence[Source]) -> bool:
    """Tells whether the images of sources stay in shards.

    Raises:
        UserError: some are at addresses, and some in folders.
    """
    there = [source for source in sources if source.collection.address is not None]
    here = [source for source in sources if source.collection.address is None]
    if there and here:
        raise UserError(
            f"{here[0].collection.where} is a folder, and {there[0].collection.where} an address: a training set has "
            "all of its collections in stores, or all in folders; `dreamloom collection copy` brings one to the others."
        )
    return bool(there)


def shards_of(source: Source) -> list[str]:
    """Returns what changes when the images of a source at an address come to lie elsewhere; none of one in a folder."""
    if source.collection.address is None:
        return []
    place = _store(source)
    footers = (place.metadata(SHARDS, part) for part in place.parts(SHARDS))
    return [place.address, *(repr(sorted(footer.items())) for footer in footers)]


class StreamedImages:
    """Where the images of a training set lie.

    Args:
        rows: the history.
        placement: where the images would lie in a workspace.
        ordered: the sources.
        target: address of the folder of the table.

    Raises:
        UserError: an image is not there, or a crop can't be made or put.
    """

    def __init__(self, rows: pa.Table, placement: Placement, ordered: Sequence[Source], target: str) -> None:
        """Finds the images, and puts the crops."""
        self.crop_hashes: dict[int, str] = {}
        """Row → hash of each crop."""
        self._placement, self._places = placement, dict[int, tuple[str, int, int]]()
        which = np.flatnonzero(placement.files.is_valid().to_numpy(False))
        some = rows.select(["source", "image", "replaced", "crop"]).take(pa.array(which))
        stores, crops = {source.name: _store(source) for source in ordered}, dict[int, tuple[StorePlace, str, str]]()
        columns = (some[name].to_pylist() for name in some.column_names)
        for row, name, image, replaced, crop in zip(which.tolist(), *columns, strict=True):
            place = stores[name].place_of(replaced or image)
            if place is None:
                raise UserError(
                    f"{stores[name].address} has no image {replaced or image}; `dreamloom collection verify "
                    f"{stores[name].address}` tells more."
                )
            if crop:
                crops[row] = stores[name], replaced or image, crop
            self._places[row] = f"{stores[name].address}/{place[0]}", place[1], place[2]
        self._crops = self._put_crops(crops, Store(target)) if crops else set[str]()

    def _put_crops(self, crops: Mapping[int, tuple[StorePlace, str, str]], store: Store) -> set[str]:
        """Puts the crops in shards, unless they are there, and returns the names of these."""
        with tempfile.TemporaryDirectory(prefix="dreamloom-crops-") as temporary:
            folder, rows = Path(temporary), dict[str, int]()
            for row, (place, image, crop) in crops.items():
                name = f"{row:08d}{Path(image).suffix}"
                write_crop(place.image(image), folder / name, crop, f"{place.address}/{image}")
                self.crop_hashes[row], rows[name] = file_sha256(folder / name), row
            stamp = hashlib.blake2b(repr(sorted(self.crop_hashes.items())).encode(), digest_size=8).hexdigest()
            names, wanted = set[str](), [{"image": name, "image_sha256": None} for name in rows]
            for number, (shard, members) in enumerate(
                pack_images(wanted, lambda name: (folder / name).read_bytes(), folder)
            ):
                name = f"{_CROPS}/{stamp}-{number:03d}.tar"
                store.put_once(shard, name)
                shard.unlink()
                names.add(name)
                for member in members:
                    self._places[rows[member["image"]]] = name, member["offset"], member["bytes"]
        return names

    def add_to(self, manifest: pa.Table, rows: pa.Table) -> pa.Table:
        """Returns a manifest with the columns of PLACES."""
        captions, places = rows["caption"].to_pylist(), [self._places.get(row) for row in range(len(rows))]
        columns: list[list[Any]] = [[place and place[number] for place in places] for number in range(3)]
        told = self._placement.told_beside.tolist()
        columns.append([caption if is_told else None for caption, is_told in zip(captions, told, strict=True)])
        columns.append([self._placement.settings.get(row) for row in range(len(rows))])
        for field, column in zip(PLACES, columns, strict=True):
            manifest = manifest.append_column(field, pa.array(column, field.type))
        return manifest

    def remove_old_crops(self, target: str) -> None:
        """Removes shards of crops that the table does not name any more, and nothing that others put there."""
        store = Store(target)
        for name in filter(_OURS.fullmatch, list_files(f"{target}/{_CROPS}")):
            if f"{_CROPS}/{name}" not in self._crops:
                store.remove(f"{_CROPS}/{name}")


def put_manifest(manifest: pa.Table, metadata: Mapping[str, str], address: str) -> None:
    """Puts a manifest at an address, whole or not at all.

    Raises:
        UserError: it can't be written to.
    """
    with tempfile.TemporaryDirectory(prefix="dreamloom-store-") as temporary:
        file = Path(temporary) / TRAINING_MANIFEST
        write_table(file, manifest, metadata)
        Store(address).put(file, TRAINING_MANIFEST)


def manifest_metadata_at(address: str) -> dict[str, str]:
    """Reads how the manifest at an address was made; empty where there is none.

    Raises:
        UserError: it can't be read, or a newer release wrote it in another way.
    """
    import pyarrow.parquet as pq

    store = Store(address)
    if not store.has(TRAINING_MANIFEST):
        return {}
    return metadata_of(store.read_with(TRAINING_MANIFEST, pq.read_metadata), Path(address) / TRAINING_MANIFEST)


def _store(source: Source) -> StorePlace:
    place = source.collection.place
    if not isinstance(place, StorePlace):
        raise TypeError(f"{source.collection.where} is no address")
    return place
