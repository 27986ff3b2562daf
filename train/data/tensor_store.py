"""Tensors by key in a folder of shards: what was computed once is there for every later run.

    <folder>/<random name>.safetensors     key → tensor

Shards are only added, each whole, so a killed run loses at most the shard it was filling. A checksum per entry finds
damaged ones, which are treated as missing. Entries are mapped into memory, not read into it.
"""

import json
import logging
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamloom.base.disk import explain_write_errors
from dreamloom.base.files import commit, lock, remove_leftovers
from dreamloom.base.progress import Progress, silent

_log = logging.getLogger(__name__)

SHARD_BYTES = 64 * 2**20
"""A shard is written when its entries have this size, in bytes."""


class TensorStore:
    """Tensors on the CPU, by key.

    Args:
        folder: where they are kept; None: in memory, for this process.
    """

    def __init__(self, folder: Path | None) -> None:
        """Opens the store; reads nothing yet."""
        self.folder = folder
        self.entries: dict[str, Tensor] = {}
        self._unwritten: dict[str, Tensor] = {}

    @contextmanager
    def filling(self, keys: set[str], progress: Progress = silent) -> Iterator[None]:
        """Maps the entries of `keys` that the folder has; in the block, the missing ones may be added with `put`.

        Other processes may read the folder meanwhile, and one that finds all its keys does not wait for the lock.

        Args:
            keys: the entries that the caller needs.
            progress: called with the number of shards looked through.

        Raises:
            UserError: another process is filling the folder, or it can't be written.
        """
        self._map(keys - set(self.entries), progress)
        if self.folder is None or keys <= set(self.entries):
            yield
            return
        with lock(self.folder, ", or give this run a cache of its own (--latent-cache)"):
            remove_leftovers(self.folder)
            self._map(keys - set(self.entries), progress)  # who held the lock may have added some
            try:
                yield
            finally:  # asked to stop, it keeps what was computed
                self._write()

    def put(self, entries: Mapping[str, Tensor]) -> None:
        """Adds entries that were computed together.

        They are written together, when their shard is full or the filling ends.
        """
        self.entries |= entries
        if self.folder is not None:
            self._unwritten |= entries
            if sum(entry.nbytes for entry in self._unwritten.values()) >= SHARD_BYTES:
                self._write()

    def _map(self, keys: set[str], progress: Progress) -> None:
        shards = sorted(self.folder.glob("[!.]*.safetensors")) if keys and self.folder else []
        for number, shard in enumerate(shards, start=1):
            progress(number, len(shards), "looking through the cache")
            try:
                with safe_open(shard, "pt") as file:
                    checksums = dict(json.loads((file.metadata() or {}).get("sums", "{}")))
                    entries = {key: file.get_tensor(key) for key in keys.intersection(file.keys())}
            except (SafetensorError, OSError, ValueError, TypeError) as error:
                _log.warning("%s is damaged (%s); what it held is computed again", shard, error)
                continue
            whole = {key: entry for key, entry in entries.items() if checksum(entry) == checksums.get(key)}
            if len(whole) < len(entries):
                _log.warning("%s is damaged; %d entries are computed again", shard, len(entries) - len(whole))
            self.entries |= whole

    def _write(self) -> None:
        """Writes a shard, and maps its entries from there, so that memory stays free however many there are."""
        if not self._unwritten or self.folder is None:
            return
        shard = self.folder / f"{secrets.token_hex(8)}.safetensors"
        save_shard(shard, self._unwritten)
        with safe_open(shard, "pt") as file:
            self.entries |= {key: file.get_tensor(key) for key in self._unwritten}
        self._unwritten = {}


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
