"""Remembers what was read of files, so that the content of a file that nobody changed is read once.

    <cache>/files-1.sqlite     path, size, modification time and inode → sha256, XXH3 of 128 bits, or another fact

The cache is the user's (cache_folder.py), so all projects share it: a base model of 4 GB is read once, not once for
each workspace. It may be deleted at any time. Where it can't be written, files are read again; where it is damaged, it
is made anew. Any number of processes may use it at once. Files at addresses are known by what their file system tells
(remote_files.py).
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import xxhash

from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.remote import is_remote
from dreamloom.base.files.remote_files import read_range, state_of
from dreamloom.base.progress import Progress, silent
from dreamloom.base.threads import map_ordered

_log = logging.getLogger(__name__)

FILE_INDEX = "files-1.sqlite"
"""The number is raised when the columns change, so that releases leave each other's files alone."""
_TABLE = (
    "create table if not exists files (key blob primary key, size integer, mtime_ns integer, inode integer, "
    "sha256 text) without rowid"
)
SETTLED_NS = 2 * 10**9
"""A file that changed less than 2 s ago may change again without another time (FAT counts in 2 s): don't trust it."""
_THREADS = min(8, os.cpu_count() or 1)
_BATCH = 256
"""Facts that are stored together: what a kill loses."""
_LOOKED_UP = 500
"""Facts that are looked up together; SQLite takes at most 999 parameters (SQLITE_MAX_VARIABLE_NUMBER before 3.32)."""
_CHUNK = 2**20
_TIMEOUT_S = 10
"""How long to wait for another process that writes."""


class FileRange(Protocol):
    """A file, or a part of one, such as a member of a .tar."""

    @property
    def file(self) -> str:
        """The path of the file, or its address."""

    @property
    def start(self) -> int:
        """Where the part begins, in bytes."""

    @property
    def length(self) -> int | None:
        """Its length in bytes; None: up to the end of the file."""


Range = TypeVar("Range", bound=FileRange)


@dataclass(frozen=True)
class WholeFile:
    """A file from its first byte to its last."""

    path: Path
    start: int = 0
    length: int | None = None

    @property
    def file(self) -> str:
        """The path of the file."""
        return os.fspath(self.path)


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
    kind = "" if algorithm == "sha256" else algorithm
    return file_facts(ranges, kind, partial(_hash, algorithm=algorithm), progress)


class ContentHashes:
    """The sha256 of files that are asked for more than once: each is looked up once in the life of the object."""

    def __init__(self) -> None:
        """Knows no hash yet."""
        self._known: dict[FileRange, bytes] = {}

    def learn(self, ranges: Iterable[FileRange], progress: Progress = silent) -> None:
        """Looks up those that are not known yet; progress is called as by `content_hashes`."""
        new = [item for item in ranges if item not in self._known]
        for item, sha256 in zip(new, content_hashes(new, progress), strict=True):
            if sha256 is not None:
                self._known[item] = bytes.fromhex(sha256)

    def get(self, item: FileRange) -> str | None:
        """Returns the hash of a range that was looked up, as hex; None where it can't be read."""
        known = self._known.get(item)
        return None if known is None else known.hex()


def file_facts(
    ranges: Sequence[Range],
    kind: str,
    read: Callable[[Range], str | None],
    progress: Progress = silent,
    note: str = "reading files",
    num_threads: int = _THREADS,
) -> list[str | None]:
    """Returns what `read` says of each range; only what changed since it was last asked is read.

    Args:
        ranges: files, or parts of files.
        kind: names what is asked, with all that the answer depends on beside the file's path and bytes; empty: sha256.
        read: is called in threads, with a range of a regular file. None: there is no answer to be remembered.
        progress: called with the number of ranges read.
        note: what progress is told.
        num_threads: ranges that are read at once.
    """
    with contextlib.closing(_Index(cache_folder() / FILE_INDEX)) as index:
        facts, unknown = _look_up(index, ranges, kind)
        items = (ranges[place] for place, _ in unknown)
        results = map_ordered(read, items, num_threads, 16 * num_threads)
        fresh: list[_Row] = []
        for done, ((place, state), fact) in enumerate(zip(unknown, results, strict=True), start=1):
            facts[place], item = fact, ranges[place]
            if fact is not None and state.is_settled() and _stat(item.file) == state:
                fresh.append((_key(item, kind), state.size, state.mtime_ns, state.inode, fact))
            if len(fresh) == _BATCH:
                index.store(fresh)
                fresh = []
            progress(done, len(unknown), note)
        index.store(fresh)
    return facts


def _look_up(
    index: "_Index", ranges: Sequence[FileRange], kind: str
) -> tuple[list[str | None], list[tuple[int, "_Stat"]]]:
    """Returns what is remembered of each range, and place and state of those that are there and not known."""
    facts: list[str | None] = []
    unknown: list[tuple[int, _Stat]] = []
    for start in range(0, len(ranges), _LOOKED_UP):
        chunk = ranges[start : start + _LOOKED_UP]
        keys = [_key(item, kind) for item in chunk]
        known = index.find(keys)
        for place, (key, state) in enumerate(zip(keys, _stats(chunk), strict=True), start):
            before, fact = known.get(key, (None, None))
            facts.append(fact if before == state else None)
            if state is not None and before != state:
                unknown.append((place, state))
    return facts, unknown


_Row = tuple[bytes, int, int, int, str]


class _Stat(NamedTuple):
    """What changes when the content of a file does, unless somebody hides it."""

    size: int
    mtime_ns: int
    inode: int

    def is_settled(self) -> bool:
        return time.time_ns() - self.mtime_ns > SETTLED_NS


def _stat(file: str) -> _Stat | None:
    if is_remote(file):
        state = state_of(file)
        return _Stat(state.size, 0, state.number())
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe, or /dev/zero, never ends
        return None
    return _Stat(status.st_size, status.st_mtime_ns, status.st_ino)


def _stats(ranges: Sequence[FileRange]) -> list[_Stat | None]:
    """Stats each file, once for all its consecutive ranges."""
    stats: list[_Stat | None] = []
    for place, item in enumerate(ranges):
        stats.append(stats[-1] if place and item.file == ranges[place - 1].file else _stat(item.file))
    return stats


def _key(item: FileRange, kind: str) -> bytes:
    place = item.file if is_remote(item.file) else os.path.abspath(item.file)
    path = os.fsencode(f"{kind}:{place}" if kind else place)
    return path if item.length is None else b"%s\0%d+%d" % (path, item.start, item.length)


def _hash(item: FileRange, algorithm: str) -> str | None:
    digest, left = hashlib.sha256() if algorithm == "sha256" else xxhash.xxh3_128(), item.length
    if is_remote(item.file):
        digest.update(read_range(item.file, item.start, left))
        return digest.hexdigest()
    try:
        with open(item.file, "rb") as stream:
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
    """The table of facts; empty where it can't be used, as what it holds can be computed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _open(path)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[tuple[int, ...], str]]:
        """Returns what is stored under at most _LOOKED_UP keys: how the file was then, and the fact."""
        if self._connection is None:
            return {}
        try:
            select = "select key, size, mtime_ns, inode, sha256 from files where key in (%s)"
            rows = self._connection.execute(select % ",".join("?" * len(keys)), keys).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return {}
        return {row[0]: (row[1:4], row[4]) for row in rows}

    def store(self, rows: Sequence[_Row]) -> None:
        """Remembers facts."""
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
