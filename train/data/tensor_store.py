"""Tensors by key, kept in a folder of shards: what was computed once is there for every later run.

    <folder>/<random name>.safetensors     key → tensor

Shards are only ever added, each whole, so a killed run loses at most the one it was filling; a checksum for each entry
finds the damaged ones, which are as good as not there. Entries are mapped into memory, not read into it.
"""

import json
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

SHARD_BYTES = 64 * 2**20


class TensorStore:
    """Entries on the processor, by key.

    Args:
        folder: where they are kept; None: in memory, for this process.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.entries: dict[str, Tensor] = {}
        self._fresh: dict[str, Tensor] = {}

    @contextmanager
    def filling(self, wanted: set[str], progress: Progress = silent) -> Iterator[None]:
        """Within, entries may be put; at first, those of `wanted` that the folder has are mapped.

        Other processes may read the folder meanwhile, and one that finds all it wants need not wait for its turn.

        Raises:
            UserError: another process is filling the folder, or it can't be written.
        """
        self._map(wanted - set(self.entries), progress)
        if self.folder is None or wanted <= set(self.entries):
            yield
            return
        with lock(self.folder, ", or give this run a cache of its own (--latent-cache)"):
            remove_leftovers(self.folder)
            self._map(wanted - set(self.entries), progress)  # who held it may have made some
            try:
                yield
            finally:  # asked to stop, it keeps what was made
                self._store()

    def put(self, made: Mapping[str, Tensor]) -> None:
        """Adds entries that were made together; they are on the disk, together, when their shard is full, or the
        filling ends."""
        self.entries |= made
        if self.folder is not None:
            self._fresh |= made
            if sum(entry.nbytes for entry in self._fresh.values()) >= SHARD_BYTES:
                self._store()

    def _map(self, wanted: set[str], progress: Progress) -> None:
        shards = sorted(self.folder.glob("[!.]*.safetensors")) if wanted and self.folder else []
        for number, shard in enumerate(shards, start=1):
            progress(number, len(shards), "looking through the cache")
            try:
                with safe_open(shard, "pt") as stored:
                    sums = json.loads((stored.metadata() or {}).get("sums", "{}"))
                    here = {key: stored.get_tensor(key) for key in wanted.intersection(stored.keys())}
            except (SafetensorError, OSError, ValueError):
                continue  # damaged as a whole; its entries are made again
            self.entries |= {key: value for key, value in here.items() if checksum(value) == sums.get(key)}

    def _store(self) -> None:
        """Writes what is fresh, and maps it from there: memory stays free, however much is made."""
        if not self._fresh or self.folder is None:
            return
        shard = self.folder / f"{secrets.token_hex(8)}.safetensors"
        save_shard(shard, self._fresh)
        with safe_open(shard, "pt") as stored:
            self.entries |= {key: stored.get_tensor(key) for key in self._fresh}
        self._fresh = {}


def save_shard(path: Path, entries: Mapping[str, Tensor]) -> None:
    """Writes a shard, atomically.

    Raises:
        UserError: it can't be.
    """
    sums = json.dumps({key: checksum(value) for key, value in entries.items()})
    with (
        explain_write_errors(path, "make room and run again, or name another --latent-cache"),
        commit(path) as temporary,
    ):
        save_file({key: value.clone() for key, value in entries.items()}, temporary, metadata={"sums": sums})


def checksum(entry: Tensor) -> int:
    """By which damage to a stored entry is found."""
    return zlib.crc32(np.ascontiguousarray(entry.numpy()).data)
