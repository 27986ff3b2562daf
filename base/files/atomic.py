"""Writes files whole or not at all, and copies, links and locks them."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.base.text import is_utf8

TEMPORARY = ".tmp-"
"""Prefix of each file and folder that is still being written; readers ignore them."""


@contextlib.contextmanager
def commit(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path` when the block ends without error.

    Args:
        sync: wait until the disk has it, which takes some milliseconds. Without, the file survives a killed process,
            but not a power cut.
    """
    make_folder(path.parent)
    temporary = _beside(path)
    try:
        yield temporary
        os.chmod(temporary, _file_mode())
        if sync:
            fsync(temporary)
        os.replace(temporary, path)
        if sync:
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def commit_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; it becomes `path` when the block ends without error.

    An existing folder is moved aside first and removed last, so a crash leaves the old one, the new one, or (between
    two renames) the old one under a temporary name, and never half of either.

    Files get the rights that the umask gives, whatever a library gave them (safetensors writes 0600). Hard links to
    files elsewhere are left alone, so a folder of 100,000 links takes seconds.
    """
    make_folder(path.parent)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        own, mode = list(_without_links(temporary)), _file_mode()
        for file in own:
            if os.path.isfile(file):
                os.chmod(file, mode)
        fsync_all(own)
        fsync(temporary)
        old = _beside(path)
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
        fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _without_links(folder: "str | Path") -> Iterator[str]:
    """Yields what lies in a folder and below, but no hard links to files elsewhere."""
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir()
            if is_folder or entry.stat().st_nlink == 1:
                yield entry.path
            if is_folder and not entry.is_symlink():
                yield from _without_links(entry.path)


_umask_guard = threading.Lock()


def _file_mode() -> int:
    """The mode of new files. On Linux the umask is read without setting it, which other threads would notice."""
    try:
        status = Path("/proc/self/status").read_text()
        umask = int(status.split("Umask:")[1].split()[0], 8)
    except (OSError, IndexError):
        with _umask_guard:
            os.umask(umask := os.umask(0o077))
    return 0o666 & ~umask


def commit_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with commit(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def commit_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; names that are not UTF-8 are read back as they were."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    commit_text(path, (text if is_utf8(text) else json.dumps(value, indent=2, default=str)) + "\n")


def create_file(path: str | Path, data: bytes) -> bool:
    """Writes a new file, whole or not at all. It survives a killed process, but not a power cut.

    Returns:
        False where `path` exists already; it is left as it is.
    """

    def write(temporary: str) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[os.write(descriptor, remaining) :]
        finally:
            os.close(descriptor)

    return _create(path, write)


def create_copy(source: str | Path, path: str | Path) -> bool:
    """Copies a file to a new one as `copy` does, whole or not at all; see `create_file`."""
    return _create(path, lambda temporary: copy(source, temporary))


def _create(path: str | Path, write: Callable[[str], None]) -> bool:
    temporary = os.path.join(os.path.dirname(path), temporary_name())
    try:
        write(temporary)
        try:
            os.link(temporary, path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            if os.path.lexists(path):
                return False
            os.rename(temporary, path)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def refuse_file(folder: Path) -> None:
    """Refuses a place for a folder that a file has, or where a folder above it would be.

    Raises:
        UserError: it is such a place.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; name a folder.")


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, so that they survive a power cut, unless they exist.

    Raises:
        UserError: an address in a store was given for it.
    """
    if address := address_of(folder):
        raise UserError(f"{address} is an address, and a folder of this machine is needed; name one.")
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        fsync(each.parent)


def remove(file: Path) -> None:
    """Removes a file, if it exists, and waits until the disk knows: what is written next is not there beside it."""
    file.unlink(missing_ok=True)
    fsync(file.parent)


def fsync(path: "str | os.PathLike[str]") -> None:
    """Waits until the disk has a file, or the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_all(paths: "Iterable[str | os.PathLike[str]]") -> None:
    """Waits until the disk has all these files; it syncs many at once about as fast as one."""
    with ThreadPoolExecutor(_SYNCS) as pool:
        for _ in pool.map(fsync, paths):
            pass


_SYNCS = 16


_FICLONE = 0x40049409
"""Linux's ioctl that makes a file share the blocks of another (ioctl_ficlone(2)): on btrfs, XFS, bcachefs, NFS, …"""


def reflink(source: str | Path, target: str | Path) -> bool:
    """Makes `target` a copy that shares the blocks of `source` until either is written to; links are followed.

    Returns:
        Whether it is; False where the file system can't, and then `target` is empty.
    """
    with open(source, "rb") as original, open(target, "wb") as copied:
        try:
            fcntl.ioctl(copied, _FICLONE, original.fileno())
        except OSError:
            return False
    return True


def copy(source: str | Path, target: str | Path) -> None:
    """Makes the new file `target` a copy of `source`, by `reflink` where the file system can.

    Files of the user's are copied, never linked: some programs write in place, and would change the original. Use it
    for temporary names only, as `link`.
    """
    if not reflink(source, target):
        shutil.copyfile(source, target)


def link(source: str | Path, target: str | Path) -> None:
    """Makes the new file `target` a hard link to `source`, or a copy of it where the file system can't link.

    Use it for our own files, and in temporary folders only: elsewhere a copy that is cut short would be taken for the
    whole file. Of a symbolic link, the file that it points to is linked.

    Raises:
        FileExistsError: `target` exists.
    """
    try:
        os.link(os.path.realpath(source) if os.path.islink(source) else source, target)
    except FileExistsError:
        raise
    except OSError:
        copy(source, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` a hard link to `source`, or a copy of it where the file system can't link.

    An existing `target` is replaced atomically. It survives a killed process, but not a power cut.
    """
    make_folder(target.parent)
    temporary = _beside(target)
    try:
        link(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, writers: Callable[[], Iterable[str]] = tuple) -> None:
    """Removes the half-written files that other processes left directly in `folder`.

    Call it with the folder's lock held: then whatever this process did not begin belongs to one that is dead.

    Args:
        writers: returns the tokens of other processes that may be at work there.
    """
    found = list(folder.glob(f"{TEMPORARY}*"))  # before it is asked who is there: whoever comes later wrote none of it
    alive = tuple(f"{TEMPORARY}{token}-" for token in {_process_token, *writers()})
    for leftover in found:
        if leftover.name.startswith(alive):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def process_token() -> str:
    """Returns what the names of this process's half-written files begin with, after `TEMPORARY`."""
    return _process_token


def temporary_name(suffix: str = "") -> str:
    """Makes a new name for what is still being written; `remove_leftovers` knows by it which process began it."""
    return f"{TEMPORARY}{_process_token}-{secrets.token_hex(6)}{suffix}"


def _renew_token() -> None:
    global _process_token
    _process_token = secrets.token_hex(6)


_process_token = ""
"""Tells processes apart, as process numbers do not: in containers, each run is number 1."""
_renew_token()
os.register_at_fork(after_in_child=_renew_token)


def _beside(path: Path) -> Path:
    return path.with_name(temporary_name(path.suffix))
