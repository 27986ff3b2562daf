"""Tells in a hash what lies in folders and below, so that what was found there once need not be looked for again."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from dreamloom.base.file_index import SETTLED_NS
from dreamloom.base.listing import visit_folders

_LOOK_COUNTS_S = 60.0
"""How long what was seen in a folder counts within `looking_once`."""
_KIND = 0o170000
"""The bits of a mode that say what kind of file it is (inode(7))."""

_Looks = dict[tuple[tuple[str, ...], bool], tuple[float, str]]
_looks: ContextVar[_Looks | None] = ContextVar("looks", default=None)
"""Folders, and whether links are followed → when they were looked at, and their state."""


@contextmanager
def looking_once() -> Iterator[None]:
    """Within the block, a folder that was looked at in the last minute is taken to be as it was then.

    For commands that ask in several places what lies in the same folders. Whoever is about to overwrite something there
    looks anew.
    """
    outer = _looks.get()
    token = _looks.set({} if outer is None else outer)
    try:
        yield
    finally:
        _looks.reset(token)


def tree_state(folders: Iterable[Path], follow_links: bool = True, anew: bool = False) -> str | None:
    """Hashes name, size, modification time and inode of each file in folders and below.

    It takes some three microseconds a file. A change that keeps all of these is not seen, as by the file index.

    Args:
        folders: the folders; one that does not exist is empty.
        follow_links: whether links to folders are followed.
        anew: look at them now, also within `looking_once`.

    Returns:
        32 hex digits; None: a folder can't be read, or a file changed so recently that it may change again unseen.
    """
    tops = tuple(os.fspath(folder) for folder in folders)
    looks = _looks.get()
    seen = None if looks is None or anew else looks.get((tops, follow_links))
    if seen is not None and time.monotonic() - seen[0] < _LOOK_COUNTS_S:
        return seen[1]
    state = _look(tops, follow_links)
    if looks is not None and state is not None:
        looks[tops, follow_links] = time.monotonic(), state
    return state


def _look(tops: tuple[str, ...], follow_links: bool) -> str | None:
    digest, newest = hashlib.blake2b(digest_size=16), 0
    try:
        for folder, (files, changed) in visit_folders(tops, partial(_look_into, follow_links=follow_links)):
            newest = max(newest, changed)
            digest.update("\n".join([f"\n{folder}", *sorted(files)]).encode("utf-8", "surrogatepass"))
    except OSError:
        return None
    return digest.hexdigest() if time.time_ns() - newest > SETTLED_NS else None


def _look_into(folder: str, follow_links: bool) -> tuple[tuple[list[str], int], list[str]]:
    """Returns a line for each file of a folder, and when the newest changed; and the folders in it.

    Files are named relative to the open folder, as the kernel would else look up a long path for each.
    """
    files, below, newest = list[str](), list[str](), 0
    if not os.path.isdir(folder):
        return (files, newest), below
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(inside):
            try:
                status = os.stat(name, dir_fd=inside)
            except OSError:  # a link to nothing
                status = os.stat(name, dir_fd=inside, follow_symlinks=False)
            if status.st_mode & _KIND == stat.S_IFDIR:
                if follow_links or not os.path.islink(os.path.join(folder, name)):
                    below.append(os.path.join(folder, name))
                continue
            if (changed := status.st_mtime_ns) > newest:
                newest = changed
            files.append(f"{name}\0{status.st_size} {changed} {status.st_ino}")
    finally:
        os.close(inside)
    return (files, newest), sorted(below, reverse=True)
