"""Locks of folders: one process at a time makes what lies in them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import make_folder
from dreamloom.base.sharing.overlapping import Overlapping

_held = Overlapping[Path, int]()  # lock file → its open descriptor


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
    with _held.hold(path, lambda: _lock_file(path, folder, alternative), os.close):
        yield


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
