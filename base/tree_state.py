"""Tells in a hash what lies in folders and below, so that what was found there once need not be looked for again."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from dreamloom.base.file_index import SETTLED_NS


def tree_state(folders: Iterable[Path], follow_links: bool = True) -> str | None:
    """Hashes name, size, modification time and inode of each file in folders and below.

    It takes some three microseconds a file. A change that keeps all of these is not seen, as by the file index.

    Args:
        folders: the folders; one that does not exist is empty.
        follow_links: whether links to folders are followed.

    Returns:
        32 hex digits; None: a folder can't be read, or a file changed so recently that it may change again unseen.
    """
    digest, newest, visited = hashlib.blake2b(digest_size=16), 0, set[str]()
    waiting = [os.fspath(folder) for folder in folders][::-1]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder above
            continue
        visited.add(real)
        lines = [f"\n{folder}"]
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if os.path.isdir(folder) else []
        except OSError:
            return None
        for entry in entries:
            if entry.is_dir():
                if follow_links or not entry.is_symlink():
                    waiting.append(entry.path)
                continue
            status = _stat(entry)
            newest = max(newest, status.st_mtime_ns)
            lines.append(f"{entry.name}\0{status.st_size} {status.st_mtime_ns} {status.st_ino}")
        digest.update("\n".join(lines).encode("utf-8", "surrogatepass"))
    return digest.hexdigest() if time.time_ns() - newest > SETTLED_NS else None


def _stat(entry: "os.DirEntry[str]") -> os.stat_result:
    """Returns the state of a file; of a link to nothing, that of the link."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)
