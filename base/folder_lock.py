"""Locks of folders: one process at a time makes what lies in them."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files import make_folder

_held: dict[Path, tuple[int, int]] = {}  # lock file → (its open descriptor, number of blocks that hold it)
_held_guard = threading.Lock()


@contextlib.contextmanager
def lock(folder: Path, alternative: str = "") -> Iterator[None]:
    """Locks `folder` against other processes until the block ends; blocks of one process may overlap.

    Args:
        alternative: how else than by waiting the user can go on, for the error's sentence: ", or …".

    Raises:
        UserError: another process holds the lock.
    """
    make_folder(folder)
    path = folder.resolve() / ".lock"
    with _held_guard:
        descriptor, holders = _held.get(path) or (_lock_file(path, folder, alternative), 0)
        _held[path] = (descriptor, holders + 1)
    try:
        yield
    finally:
        with _held_guard:
            descriptor, holders = _held.pop(path)
            if holders > 1:
                _held[path] = (descriptor, holders - 1)
            else:
                os.close(descriptor)


def _lock_file(path: Path, folder: Path, alternative: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{folder} is in use by another run (process {holder}); wait for it to end, or stop it{alternative}."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
    return descriptor


def is_locked(file: Path) -> bool | None:
    """Tells whether a process holds a file's lock, such as the `.lock` of `lock`; None: the file can't be opened."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
