"""Files at addresses (s3://bucket/set/0.tar): their states, parts of them, and whole ones by way of a bounded cache.

    <cache>/shards/<hash>.tar     a file in one state; those that were not opened for longest go first

The cache is the user's (`dreamloom.base.files.cache_folder`) and may be deleted at any time.
"""

import contextlib
import hashlib
import os
import posixpath
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import TEMPORARY, commit, make_folder
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.free_space import require_free_space
from dreamloom.base.files.remote import file_system, reach, version_of

SHARD_CACHE_GB = 20.0
"""Gigabytes of files that are kept unless a config says otherwise."""
_ABANDONED_S = 86_400
"""A file that nobody wrote to for a day is what a killed process began."""


class FileState(NamedTuple):
    """What changes when the content of a file does."""

    size: int
    """In bytes."""
    version: str
    """Its ETag, or what else the file system has."""

    def number(self) -> int:
        """Returns a number of 63 bits for the version."""
        return int.from_bytes(hashlib.blake2b(self.version.encode(), digest_size=8).digest()) >> 1


_states: dict[str, FileState] = {}
"""Address → the state in which this process knows the file: from the listing, so that no read asks again."""


def list_files(address: str) -> dict[str, FileState]:
    """Lists the files at an address and below, or the one that it names: path below the address → state, by name.

    Raises:
        UserError: it can't be listed.
    """
    filesystem, root = file_system(address)
    filesystem.invalidate_cache()
    found = reach(address, "read", lambda: filesystem.find(root, detail=True))
    for known in [known for known in _states if f"{known}/".startswith(f"{address}/")]:
        del _states[known]
    states = {}
    for path, info in sorted(found.items()):
        name = posixpath.basename(path) if path == root else path.removeprefix(f"{root}/")
        states[name] = _states[address if path == root else f"{address}/{name}"] = _state(info)
    return states


def is_known(file: str) -> bool:
    """Tells whether a file was listed, or its state asked for."""
    return file in _states


def state_of(file: str) -> FileState:
    """Returns the state in which this process knows a file: as it was listed, or else as it is now.

    Raises:
        UserError: it is not there, or can't be read.
    """
    if file not in _states:
        _states[file] = _state_now(file)
    return _states[file]


def read_range(file: str, start: int = 0, length: int | None = None) -> bytes:
    """Reads bytes of a file: from the cache, if the file is there, or else by one request.

    Args:
        file: its address.
        start: the first byte.
        length: how many; None: up to the end.

    Raises:
        UserError: it can't be read, or is shorter than it was.
    """
    if length == 0:
        return b""
    with contextlib.suppress(OSError), open(_place(file), "rb") as stream:
        stream.seek(start)
        return stream.read(-1 if length is None else length)
    filesystem, path = file_system(file)
    stop = None if length is None else start + length
    data: bytes = reach(file, "read", lambda: filesystem.cat_file(path, start=start or None, end=stop))
    if len(data) != (state_of(file).size - start if length is None else length):
        raise changed(file)
    return data


@contextlib.contextmanager
def whole_file(file: str, cache_gb: float) -> Iterator[BinaryIO]:
    """Opens a file; it is in the cache during the block, from which `read_range` takes it.

    Args:
        file: its address.
        cache_gb: gigabytes that stay in the cache afterwards.

    Raises:
        UserError: it can't be read, changed meanwhile, or the disk is full.
    """
    place = _place(file)
    _in_use.add(place.name)
    try:
        with _open(file, place, cache_gb * 1e9) as stream:
            yield stream
    finally:
        _in_use.discard(place.name)
    _evict(place.parent, cache_gb * 1e9)


_in_use: set[str] = set()
"""Files in the cache that this process is reading; others may take them all the same, and parts are asked for then."""


def _open(file: str, place: Path, cache_bytes: float) -> BinaryIO:
    with contextlib.suppress(OSError):
        _note_use(place)
        return open(place, "rb")
    state, (filesystem, path) = state_of(file), file_system(file)
    try:
        make_folder(place.parent)
        _evict(place.parent, cache_bytes - state.size)
        require_free_space(place.parent, state.size)
        with commit(place, sync=False) as temporary:
            reach(file, "read", lambda: filesystem.get_file(path, str(temporary)))
            if _state_now(file) != state or temporary.stat().st_size != state.size:
                raise changed(file)
            _note_use(temporary)
            return open(temporary, "rb")
    except OSError as error:
        raise UserError(
            f"{place.parent} can't be written ({error.strerror}); make room, or name another folder by DREAMLOOM_CACHE."
        ) from error


def _note_use(place: Path) -> None:
    now = time.time_ns()  # the kernel's own time has steps of milliseconds
    os.utime(place, ns=(now, now))


def changed(file: str) -> UserError:
    """Returns what to raise where a file is not what it was when it was listed."""
    return UserError(f"{file} changed while it was in use; when whoever writes it is done, run again.")


def _state(info: dict[str, Any]) -> FileState:
    return FileState(int(info["size"]), version_of(info).strip('"'))  # some servers list ETags without quotes


def _state_now(file: str) -> FileState:
    filesystem, path = file_system(file)
    filesystem.invalidate_cache()
    return _state(reach(file, "read", lambda: filesystem.info(path)))


def _place(file: str) -> Path:
    name = hashlib.blake2b(f"{file}\0{state_of(file)}".encode(), digest_size=16).hexdigest()
    return cache_folder() / "shards" / f"{name}.tar"


def _evict(folder: Path, size: float) -> None:
    """Removes what was not opened for longest, until no more bytes are left; and what killed processes left."""
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process evicts, too
            status = entry.stat()
            if not entry.name.startswith(TEMPORARY) and entry.name not in _in_use:
                files.append((status.st_mtime, entry.path, status.st_size))
            elif entry.name.startswith(TEMPORARY) and status.st_mtime < time.time() - _ABANDONED_S:
                os.unlink(entry.path)
    left = sum(each for _, _, each in files)
    for _, path, freed in sorted(files):
        if left <= size:
            return
        Path(path).unlink(missing_ok=True)
        left -= freed
