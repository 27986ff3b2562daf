"""Tensors by key in a folder of shards: what was computed once is there for every later run.

    <folder>/<random name>.safetensors     key → tensor

Shards are only added, each whole, so a killed run loses at most the shard it was filling. Of each entry, memory holds
in 34 bytes where it lies. It is mapped when it is asked for, and then its checksum tells whether it is damaged.
"""

import hashlib
import json
import logging
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from dreamloom.base.files.atomic import commit, remove_leftovers
from dreamloom.base.files.disk import explain_write_errors
from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock

_log = logging.getLogger(__name__)

SHARD_BYTES = 64 * 2**20
"""A shard is written when its entries have this size, in bytes."""
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "U8": np.dtype(np.uint8),
}
"""The types of entries, by their names in safetensors."""
_DIGEST = np.dtype("S16")
_PLACE = np.dtype([("shard", "u4"), ("form", "u2"), ("begin", "u8"), ("sum", "u4")])
"""Which shard, which type and shape, the first byte in the shard, and the CRC-32 of the bytes."""

_Form = tuple[np.dtype[Any], tuple[int, ...]]
"""Type and shape of an entry."""


class DamagedError(Exception):
    """An entry that was asked for is damaged; from now on it is missing."""


class _Index(NamedTuple):
    """Where entries lie, sorted by the digests of their keys; an entry may lie in several shards."""

    digests: npt.NDArray[np.bytes_]
    places: npt.NDArray[Any]


class TensorStore:
    """Tensors on the CPU, by key.

    Args:
        folder: where they are kept; None: in memory, for this process.
    """

    def __init__(self, folder: Path | None) -> None:
        """Opens the store; reads nothing yet."""
        self.folder = folder
        self._index = _Index(np.empty(0, _DIGEST), np.empty(0, _PLACE))
        self._shards: list[npt.NDArray[np.uint8]] = []
        self._looked_through: set[str] = set()  # names of shards, of damaged ones, too
        self._forms: list[_Form] = []
        self._form_numbers: dict[_Form, int] = {}
        self._changing = Lock()
        self._unwritten: dict[str, Tensor] = {}
        self._unwritten_bytes = 0

    def __len__(self) -> int:
        """Counts the entries."""
        return len(np.unique(self._index.digests)) + len(self._unwritten)

    def __getitem__(self, key: str) -> Tensor:
        """Returns an entry.

        Raises:
            KeyError: there is none of this key.
            DamagedError: it is damaged.
        """
        if (entry := self._unwritten.get(key)) is not None:
            return entry
        index, digest = self._index, _digests([key])
        first, last = (int(np.searchsorted(index.digests, digest, side)[0]) for side in ("left", "right"))
        if first == last:
            raise KeyError(key)
        for place in index.places[first:last]:
            if (entry := self._read(place)) is not None:
                return entry
        with self._changing:
            self._index = _Index(*(each[self._index.digests != digest] for each in self._index))
        raise DamagedError(key)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Returns the keys without an entry."""
        known, digests = self._index.digests, _digests(keys)
        is_there = np.zeros(len(keys), bool)
        if len(known):
            is_there = known[np.minimum(np.searchsorted(known, digests), len(known) - 1)] == digests
        return [key for key, there in zip(keys, is_there, strict=True) if not there and key not in self._unwritten]

    @contextmanager
    def filling(self, keys: Sequence[str], progress: Progress = silent) -> Iterator[None]:
        """Opens the store to entries: in the block, those of `keys` that are missing may be added with `put`.

        Other processes may read the folder meanwhile, and one that finds all its keys does not wait for the lock.

        Args:
            keys: the entries that the caller needs.
            progress: called with the number of shards looked through.

        Raises:
            UserError: another process is filling the folder, or it can't be written.
        """
        self.look_through(progress)
        if self.folder is None or not self.missing(keys):
            yield
            return
        with lock(self.folder, ", or give this run a cache of its own (--latent-cache)"):
            remove_leftovers(self.folder)
            self.look_through(progress)  # who held the lock may have added some
            try:
                yield
            finally:  # asked to stop, it keeps what was computed
                self._write()

    def put(self, entries: Mapping[str, Tensor]) -> None:
        """Adds entries that were computed together.

        They are written together, when their shard is full or the filling ends.
        """
        self._unwritten |= entries
        self._unwritten_bytes += sum(entry.nbytes for entry in entries.values())
        if self.folder is not None and self._unwritten_bytes >= SHARD_BYTES:
            self._write()

    def look_through(self, progress: Progress = silent) -> None:
        """Finds what the shards hold that were added since the last look."""
        shards = sorted(self.folder.glob("[!.]*.safetensors")) if self.folder else []
        new = [shard for shard in shards if shard.name not in self._looked_through]
        for number, shard in enumerate(new, start=1):
            progress(number, len(new), "looking through the cache")
            self._looked_through.add(shard.name)
        self._add(new)

    def _write(self) -> None:
        """Writes a shard, and maps its entries from there, so that memory stays free however many there are."""
        if not self._unwritten or self.folder is None:
            return
        shard = self.folder / f"{secrets.token_hex(8)}.safetensors"
        save_shard(shard, self._unwritten)
        self._looked_through.add(shard.name)
        self._add([shard])
        self._unwritten, self._unwritten_bytes = {}, 0

    def _add(self, shards: Sequence[Path]) -> None:
        """Adds the entries of shards; one that is damaged is left out."""
        with self._changing:
            indexes = [self._index]
            for shard in shards:
                try:
                    indexes.append(self._map(shard))
                except (
                    OSError,
                    RuntimeError,
                    ValueError,
                    LookupError,
                    TypeError,
                    AttributeError,
                    OverflowError,
                ) as error:
                    _log.warning("%s is damaged (%s); what it held is computed again", shard, error)
            if len(indexes) > 1:
                digests, places = (np.concatenate(columns) for columns in zip(*indexes, strict=True))
                order = np.argsort(digests, kind="stable")
                self._index = _Index(digests[order], places[order])

    def _map(self, path: Path) -> _Index:
        """Maps a shard, and returns where its entries lie; the format is https://github.com/huggingface/safetensors.

        The library would hold several hundred bytes for each entry.
        """
        content = _map_file(path)
        begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:begin].tobytes())
        checksums = json.loads(header.pop("__metadata__")["sums"])
        own = [key for key in header if key in checksums]
        rows = [(len(self._shards), *self._locate(header[key], begin, len(content)), checksums[key]) for key in own]
        index = _Index(_digests(own), np.array(rows, _PLACE))
        self._shards.append(content)
        return index

    def _locate(self, entry: Mapping[str, Any], begin: int, end: int) -> tuple[int, int]:
        """Returns the number of an entry's form, and its first byte in the shard, whose data begin and end there."""
        form = (_DTYPES[entry["dtype"]], tuple(entry["shape"]))
        first, last = (begin + offset for offset in entry["data_offsets"])
        if not begin <= first <= last <= end or last - first != form[0].itemsize * prod(form[1]):
            raise ValueError("it is cut short")
        if form not in self._form_numbers:
            self._form_numbers[form] = len(self._forms)
            self._forms.append(form)
        return self._form_numbers[form], first

    def _read(self, place: npt.NDArray[Any]) -> Tensor | None:
        """Returns the entry that lies at a place; None: it is damaged."""
        shard, (dtype, shape) = self._shards[place["shard"]], self._forms[place["form"]]
        begin = int(place["begin"])
        content = shard[begin : begin + dtype.itemsize * prod(shape)]
        if zlib.crc32(content.data) != place["sum"]:
            _log.warning("%s is damaged; an entry is computed again", self.folder)
            return None
        return torch.from_numpy(content.view(dtype).reshape(shape))


def _map_file(path: Path) -> npt.NDArray[np.uint8]:
    """Maps a file. Unlike numpy's memmap it keeps no file open, of which a process may have about a thousand.

    Raises:
        ValueError: the file is empty.
    """
    size = path.stat().st_size
    if not size:
        raise ValueError("it is empty")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()


def save_shard(path: Path, entries: Mapping[str, Tensor]) -> None:
    """Writes a shard, atomically.

    Raises:
        UserError: it can't be written.
    """
    checksums = json.dumps({key: checksum(entry) for key, entry in entries.items()})
    with (
        explain_write_errors(path, "make room and run again, or name another --latent-cache"),
        commit(path) as temporary,
    ):
        save_file({key: entry.clone() for key, entry in entries.items()}, temporary, metadata={"sums": checksums})


def checksum(entry: Tensor) -> int:
    """Computes the CRC-32 by which a damaged entry is found."""
    return zlib.crc32(np.ascontiguousarray(entry.numpy()).data)


def _digests(keys: Sequence[str]) -> npt.NDArray[np.bytes_]:
    digests = [hashlib.blake2b(key.encode(), digest_size=_DIGEST.itemsize).digest() for key in keys]
    return np.array(digests, _DIGEST)
