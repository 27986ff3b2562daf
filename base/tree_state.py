"""Tells in a hash what lies in folders and below, so that what was found there once need not be looked for again."""

import hashlib
import os
import stat
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dreamloom.base.file_index import SETTLED_NS
from dreamloom.base.listing import visit_folders

_LOOK_COUNTS_S = 60.0
"""How long what was seen in a folder counts within `looking_once`."""
_KIND = 0o170000
"""The bits of a mode that say what kind of file it is (inode(7))."""

_Looks = dict[tuple[tuple[str, ...], bool], tuple[float, "TreeLook"]]
_looks: ContextVar[_Looks | None] = ContextVar("looks", default=None)
"""Folders, and whether links are followed → when they were looked at, and what was seen."""


class FolderLook(NamedTuple):
    """What was seen in a folder, without those below it."""

    state: str | None
    """A hash of its files and the names of its folders; None: a file may change again unseen."""
    files: int
    has_folders: bool


@dataclass(frozen=True)
class TreeLook:
    """What was seen in folders and below."""

    state: str | None
    """See `tree_state`."""
    folders: Mapping[str, FolderLook]
    """By their paths; empty where one can't be read."""


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
    return look_at_tree(folders, follow_links, anew).state


def look_at_tree(folders: Iterable[Path], follow_links: bool = True, anew: bool = False) -> TreeLook:
    """Returns what `tree_state` hashes, folder by folder."""
    tops = tuple(os.fspath(folder) for folder in folders)
    looks = _looks.get()
    seen = None if looks is None or anew else looks.get((tops, follow_links))
    if seen is not None and time.monotonic() - seen[0] < _LOOK_COUNTS_S:
        return seen[1]
    look = _look(tops, follow_links)
    if looks is not None and look.state is not None:
        looks[tops, follow_links] = time.monotonic(), look
    return look


def _look(tops: tuple[str, ...], follow_links: bool) -> TreeLook:
    digest, all_settled = hashlib.blake2b(digest_size=16), True
    seen: dict[str, FolderLook] = {}
    settled_before = time.time_ns() - SETTLED_NS
    try:
        for folder, (look, newest) in visit_folders(tops, partial(_look_into, follow_links=follow_links)):
            digest.update(f"{folder}\n{look.state}\n".encode("utf-8", "surrogatepass"))
            is_settled = newest < settled_before
            seen[folder] = look if is_settled else look._replace(state=None)
            all_settled &= is_settled
    except OSError:
        return TreeLook(None, {})
    return TreeLook(digest.hexdigest() if all_settled else None, seen)


def _look_into(folder: str, follow_links: bool) -> tuple[tuple[FolderLook, int], list[str]]:
    """Returns what is seen in a folder, and when the newest of its files changed; and the folders in it.

    Files are named relative to the open folder, as the kernel would else look up a long path for each.
    """
    names, below, newest, has_folders = list[str](), list[str](), 0, False
    if not os.path.isdir(folder):
        return (FolderLook("", 0, False), newest), below
    digest, numbers = hashlib.blake2b(digest_size=16), array("q")
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = sorted(os.listdir(inside))
        for name in names:
            try:
                status = os.stat(name, dir_fd=inside)
            except OSError:  # a link to nothing
                status = os.stat(name, dir_fd=inside, follow_symlinks=False)
            if status.st_mode & _KIND == stat.S_IFDIR:
                has_folders = True
                if follow_links or not os.path.islink(os.path.join(folder, name)):
                    below.append(os.path.join(folder, name))
                numbers.append(-1)
                continue
            if (changed := status.st_mtime_ns) > newest:
                newest = changed
            try:
                numbers.extend((status.st_size, changed, status.st_ino))
            except OverflowError:  # a date before 1678, or an inode of 64 bits
                digest.update(f"{name}\0{status.st_size} {changed} {status.st_ino}\0".encode("utf-8", "surrogatepass"))
    finally:
        os.close(inside)
    digest.update("\0".join([*names, ""]).encode("utf-8", "surrogatepass"))
    digest.update(numbers)
    return (FolderLook(digest.hexdigest(), len(names), has_folders), newest), below[::-1]
