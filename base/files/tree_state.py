"""Tells in a hash what lies in folders and below, so that what was found there once need not be looked for again."""

import hashlib
import os
import stat
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dreamloom.base.files.file_index import SETTLED_NS
from dreamloom.base.files.listing import visit_folders

_LOOK_COUNTS_S = 60.0
"""How long what was seen in a folder counts within `looking_once`."""
_FEW = 3000
"""Files of a folder up to which it is quick to put each in its place among a million."""
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
    listed: tuple[list[str], "array[int]"] | None = None
    """Names, sorted, and three numbers of each; None: they were not asked for."""


@dataclass(frozen=True)
class TreeLook:
    """What was seen in folders and below."""

    state: str | None
    """A hash, 32 hex digits; None: a folder can't be read, or a file changed so recently that it may again unseen."""
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


def look_at_tree(folders: Iterable[Path], follow_links: bool = True, keep_files: bool = False) -> TreeLook:
    """Looks at name, size, modification time and inode of each file in folders and below.

    It takes some three microseconds a file. A change that keeps all of these is not seen, as by the file index.

    Args:
        folders: the folders; one that does not exist is empty.
        follow_links: whether links to folders are followed.
        keep_files: keep what was seen of each file, for `state_after`; and look now, also within `looking_once`.
    """
    tops = tuple(os.fspath(folder) for folder in folders)
    looks = _looks.get()
    seen = None if looks is None or keep_files else looks.get((tops, follow_links))
    if seen is not None and time.monotonic() - seen[0] < _LOOK_COUNTS_S:
        return seen[1]
    look = _look(tops, follow_links, keep_files)
    if looks is not None and look.state is not None:
        looks[tops, follow_links] = time.monotonic(), _without_files(look)
    return look


def _without_files(look: TreeLook) -> TreeLook:
    return TreeLook(look.state, {folder: each._replace(listed=None) for folder, each in look.folders.items()})


def state_after(look: TreeLook, changed: Iterable[str], replaced: Path) -> str | None:
    """Returns the state that a tree has after files of it were changed, unless somebody else changed others.

    Args:
        look: the tree before, with its files.
        changed: paths of files that were written, replaced or removed, in folders that were there.
        replaced: one of its folders, of which all may have changed.

    Returns:
        See `TreeLook.state`; None also where many changed.
    """
    top = os.fspath(replaced)
    states = {f: each.state for f, each in look.folders.items() if f != top and not f.startswith(f"{top}{os.sep}")}
    inside: dict[str, set[str]] = {}
    for file in changed:
        folder, name = os.path.split(file)
        inside.setdefault(folder, set()).add(name)
    if look.state is None or any(len(names) > _FEW for names in inside.values()):
        return None
    try:
        states |= {folder: _state_after(folder, look.folders[folder], names) for folder, names in inside.items()}
        for folder, (now, _) in visit_folders([top], partial(_look_into, follow_links=True)):
            states[folder] = now.state
    except (OSError, KeyError):  # somebody removes them, or they were not there
        return None
    return _hash_states(states)


def _state_after(folder: str, look: FolderLook, changed: Iterable[str]) -> str:
    assert look.listed is not None
    names, numbers = look.listed[0].copy(), look.listed[1][:]
    for name in changed:
        at = bisect_left(names, name)
        if names[at : at + 1] == [name]:
            del names[at]
            del numbers[_NUMBERS * at : _NUMBERS * (at + 1)]
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            names.insert(at, name)
            numbers[_NUMBERS * at : _NUMBERS * at] = _numbers(os.stat(path))
    return _hash_files(names, numbers)


def _look(tops: tuple[str, ...], follow_links: bool, keep_files: bool) -> TreeLook:
    all_settled, settled_before = True, time.time_ns() - SETTLED_NS
    seen: dict[str, FolderLook] = {}
    try:
        for folder, (look, newest) in visit_folders(tops, partial(_look_into, follow_links=follow_links)):
            all_settled &= (is_settled := newest < settled_before)
            look = look if is_settled else look._replace(state=None)
            seen[folder] = look if keep_files else look._replace(listed=None)
    except OSError:
        return TreeLook(None, {})
    states = {folder: look.state for folder, look in seen.items()}
    return TreeLook(_hash_states(states) if all_settled else None, seen)


def _hash_states(states: Mapping[str, str | None]) -> str:
    lines = (f"{folder}\0{state}\0" for folder, state in sorted(states.items()))
    return hashlib.blake2b("".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _look_into(folder: str, follow_links: bool) -> tuple[tuple[FolderLook, int], list[str]]:
    """Returns what is seen in a folder, and when the newest of its files changed; and the folders in it.

    Files are named relative to the open folder, as the kernel would else look up a long path for each.
    """
    if not os.path.isdir(folder):
        return (FolderLook("", 0, False, ([], array("q"))), 0), []
    below, numbers, has_folders = list[str](), list[int](), False
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
                numbers.extend(_OF_FOLDER)
            else:
                numbers.extend((status.st_size, status.st_mtime_ns, status.st_ino))
    finally:
        os.close(inside)
    packed, newest = _pack(numbers), max(numbers[1::_NUMBERS], default=0)
    return (FolderLook(_hash_files(names, packed), len(names), has_folders, (names, packed)), newest), below[::-1]


_OF_FOLDER = (-1, -1, -1)
_NUMBERS = 3


def _numbers(status: os.stat_result) -> "array[int]":
    """Returns size, modification time and inode of a file; of a folder, that it is one."""
    if status.st_mode & _KIND == stat.S_IFDIR:
        return array("q", _OF_FOLDER)
    return _pack((status.st_size, status.st_mtime_ns, status.st_ino))


def _pack(numbers: Sequence[int]) -> "array[int]":
    try:
        return array("q", numbers)
    except OverflowError:  # a date before 1678, or an inode of 64 bits
        return array("q", (number if -(2**63) <= number < 2**63 else number % 2**63 for number in numbers))


def _hash_files(names: Sequence[str], numbers: "array[int]") -> str:
    digest = hashlib.blake2b("\0".join([*names, ""]).encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(numbers)
    return digest.hexdigest()
