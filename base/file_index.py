"""Remembers the hashes of files, so that the content of a file that nobody changed is read once.

    <cache>/files-1.sqlite     path, size, modification time and inode → sha256, or XXH3 of 128 bits

The cache is the user's (`cache_folder`), so all projects share it: a base model of 4 GB is read once, not once for each
workspace. It may be deleted at any time. Where it can't be written, files are read again; where it is damaged, it is
made anew. Any number of processes may use it at once.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import xxhash

from dreamloom.base.progress import Progress, silent
from dreamloom.base.threads import map_ordered

_log = logging.getLogger(__name__)

FILE_INDEX = "files-1.sqlite"
"""The number is raised when the columns change, so that releases leave each other's files alone."""
_TABLE = (
    "create table if not exists files (key blob primary key, size integer, mtime_ns integer, inode integer, "
    "sha256 text) without rowid"
)
_SETTLED_NS = 2 * 10**9
"""A file that changed less than 2 s ago may change again without another time (FAT counts in 2 s): don't trust it."""
_THREADS = min(8, os.cpu_count() or 1)
_BATCH = 256
"""Hashes that are stored together: what a kill loses."""
_CHUNK = 2**20
_TIMEOUT_S = 10
"""How long to wait for another process that writes."""


class FileRange(Protocol):
    """A file, or a part of one, such as a member of a .tar."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def start(self) -> int:
        """Where the part begins, in bytes."""

    @property
    def length(self) -> int | None:
        """Its length in bytes; None: up to the end of the file."""


@dataclass(frozen=True)
class WholeFile:
    """A file from its first byte to its last."""

    path: Path
    start: int = 0
    length: int | None = None


def cache_folder() -> Path:
    """Returns the user's folder for what may be computed again: DREAMLOOM_CACHE, else ~/.cache/dreamloom."""
    if folder := os.environ.get("DREAMLOOM_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dreamloom"


def content_hash(file: Path) -> str | None:
    """Returns the sha256 of a file's bytes, as hex; None where it can't be read."""
    return content_hashes([WholeFile(file)])[0]


def content_hashes(
    ranges: Sequence[FileRange], progress: Progress = silent, algorithm: Literal["sha256", "xxh3"] = "sha256"
) -> list[str | None]:
    """Returns a hash of the bytes of each range, as hex; None where they can't be read.

    Only what changed since it was last hashed is read.

    Args:
        ranges: files, or parts of files.
        progress: called with the number of ranges read.
        algorithm: sha256; or XXH3 of 128 bits, which is six times as fast and tells changes, but no forgeries.
    """
    with contextlib.closing(_Index(cache_folder() / FILE_INDEX)) as index:
        stats = _stats(ranges)
        keys = [_key(item, algorithm) for item in ranges]
        hashes = [index.find(key, state) if state else None for key, state in zip(keys, stats, strict=True)]
        unknown = [place for place, state in enumerate(stats) if state and hashes[place] is None]
        work = partial(_hash, algorithm=algorithm)
        results = map_ordered(work, (ranges[place] for place in unknown), _THREADS, 4 * _THREADS)
        fresh: list[_Row] = []
        for done, (place, sha256) in enumerate(zip(unknown, results, strict=True), start=1):
            hashes[place], state = sha256, stats[place]
            if sha256 and state and state.is_settled() and _stat(ranges[place].path) == state:
                fresh.append((keys[place], state.size, state.mtime_ns, state.inode, sha256))
            if len(fresh) == _BATCH:
                index.store(fresh)
                fresh = []
            progress(done, len(unknown), "reading files")
        index.store(fresh)
    return hashes


_Row = tuple[bytes, int, int, int, str]


@dataclass(frozen=True)
class _Stat:
    """What changes when the content of a file does, unless somebody hides it."""

    size: int
    mtime_ns: int
    inode: int

    def is_settled(self) -> bool:
        return time.time_ns() - self.mtime_ns > _SETTLED_NS


def _stat(path: Path) -> _Stat | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe, or /dev/zero, never ends
        return None
    return _Stat(status.st_size, status.st_mtime_ns, status.st_ino)


def _stats(ranges: Sequence[FileRange]) -> list[_Stat | None]:
    """Stats each file, once for all its consecutive ranges."""
    stats: list[_Stat | None] = []
    for place, item in enumerate(ranges):
        stats.append(stats[-1] if place and item.path == ranges[place - 1].path else _stat(item.path))
    return stats


def _key(item: FileRange, algorithm: str) -> bytes:
    path = (b"" if algorithm == "sha256" else b"xxh3:") + os.fsencode(os.path.abspath(item.path))
    return path if item.length is None else b"%s\0%d+%d" % (path, item.start, item.length)


def _hash(item: FileRange, algorithm: str) -> str | None:
    try:
        with item.path.open("rb") as stream:
            digest, left = hashlib.sha256() if algorithm == "sha256" else xxhash.xxh3_128(), item.length
            if left is None:
                left = os.stat(stream.fileno()).st_size
            stream.seek(item.start)
            while left and (data := stream.read(min(left, _CHUNK))):
                digest.update(data)
                left -= len(data)
            return digest.hexdigest()
    except (OSError, ValueError):
        return None


class _Index:
    """The table of hashes; empty where it can't be used, as what it holds can be computed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _open(path)

    def find(self, key: bytes, state: _Stat) -> str | None:
        """Returns the hash of a file that has not changed since it was stored."""
        if self._connection is None:
            return None
        try:
            select = "select size, mtime_ns, inode, sha256 from files where key = ?"
            row = self._connection.execute(select, (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return str(row[3]) if row and _Stat(*row[:3]) == state else None

    def store(self, rows: Sequence[_Row]) -> None:
        """Remembers hashes."""
        if self._connection is None or not rows:
            return
        try:
            with self._connection:
                self._connection.executemany("insert or replace into files values (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the table."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _give_up(self, error: sqlite3.Error) -> None:
        """Goes on without the table; a damaged one is removed, so that the next process makes it anew."""
        _log.info("%s can't be used (%s)", self._path, error)
        self.close()
        if not isinstance(error, sqlite3.OperationalError):  # which is a full disk, or a lock
            _remove(self._path)


def _open(path: Path) -> sqlite3.Connection | None:
    """Opens the table, made anew where it is damaged; None where that can't be done."""
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=_TIMEOUT_S)
            with connection:
                connection.execute(_TABLE)
            return connection
        except (sqlite3.OperationalError, OSError) as error:
            _log.info("%s can't be used (%s)", path, error)
            return None
        except sqlite3.DatabaseError as error:
            _log.info("%s is made anew (%s)", path, error)
            _remove(path)
    return None


def _remove(path: Path) -> None:
    for file in (path, path.with_name(f"{path.name}-journal")):
        with contextlib.suppress(OSError):
            file.unlink()
