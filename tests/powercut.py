"""Cuts the power at each moment of some work on files, and gives the disks that may be found afterwards.

After a power cut a disk has what was synced. Of everything since, each change of a folder (a new name, a rename, a
removal) may or may not be there, in any order, and a file that was not synced may be whole, cut short or as it was
before. That is more than today's file systems do to us, and what POSIX allows them (Pillai et al. 2014, "All File
Systems Are Not Created Equal").
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.files.atomic import TEMPORARY
from dreamloom.base.sharing.workers import FOLDER as WORKERS

_CHANGES = ("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir")
"""Functions of os that change a folder. Files that anything else makes are found by looking."""

Entries = dict[str, int]
"""Name → inode, of one folder."""
_Change = tuple[int, Entries, set[str]]
"""A folder, the names added, and those removed: a rename within a folder is one change."""


@dataclass
class _State:
    """A file system below one folder: what folders and files hold, by inode."""

    folders: dict[int, Entries] = field(default_factory=dict)
    files: dict[int, bytes] = field(default_factory=dict)


@dataclass
class _Disk:
    """What is surely on the disk, and what may be: the changes of folders that were not synced, in order."""

    synced: _State
    pending: list[_Change] = field(default_factory=list)


class PowerCut:
    """Watches the work done under `root` in `watching`, then lists the disks that a power cut could have left.

    Args:
        root: a folder; what is in it when watching begins is on the disk.
        patch: the test's.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.patch = patch
        self.disks: list[tuple[_State, _Disk]] = []
        self._guard = threading.RLock()
        self._held: dict[int, int] = {}  # inode → an open descriptor: the number of a removed file is given again

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Records each change that the block makes below the root."""
        self.disks, self._held = [], {}
        self._now = self._look()
        self._disk = _Disk(_State({k: dict(v) for k, v in self._now.folders.items()}, dict(self._now.files)))
        with self.patch.context() as patch:
            for name in _CHANGES:
                patch.setattr(os, name, self._watched(getattr(os, name)))
            patch.setattr(os, "fsync", self._synced(os.fsync))
            try:
                yield
            finally:
                self._record()
                for descriptor in self._held.values():
                    os.close(descriptor)

    def left_behind(self, folder: Path) -> Iterator[tuple[Path, bool]]:
        """Makes each disk in turn in `folder`, and yields it, and whether the work had ended before the cut.

        Temporary files and folders, which all readers ignore, are left out; so are those of the workers (.workers), who
        are dead after a power cut: tests/base/sharing/test_leases.py shows what becomes of those.
        """
        seen = set()
        for number, (current, disk) in enumerate(self.disks):
            is_last = number == len(self.disks) - 1
            for names in _subsets(_visible(disk, self._root_inode)):
                for files in _contents(current, disk.synced):
                    tree = _State(_applied(disk.synced.folders, names), files)
                    shape = (is_last, repr(_flat(tree, self._root_inode)))
                    if shape not in seen:
                        seen.add(shape)
                        shutil.rmtree(folder, ignore_errors=True)
                        _write(tree, self._root_inode, folder)
                        yield folder, is_last

    @property
    def _root_inode(self) -> int:
        return self.root.stat().st_ino

    def _watched(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            with self._guard:
                self._record()  # so that each change stands alone
                try:
                    return change(*arguments, **options)
                finally:
                    self._record()

        return watched

    def _synced(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def synced(descriptor: int) -> None:
            with self._guard:
                self._record()
                fsync(descriptor)
                inode = os.fstat(descriptor).st_ino
                if inode in self._now.files:
                    self._disk.synced.files[inode] = self._now.files[inode]
                elif inode in self._now.folders:
                    of_folder = [change for change in self._disk.pending if change[0] == inode]
                    self._disk.synced.folders = _applied(self._disk.synced.folders, of_folder)
                    self._disk.pending = [change for change in self._disk.pending if change[0] != inode]
                self._keep()

        return synced

    def _record(self) -> None:
        """Notes what has changed since the last look, and the disk as it may be found now."""
        before, self._now = self._now, self._look()
        self._now.files = {**before.files, **self._now.files}  # what was removed may still be found
        for inode, entries in self._now.folders.items():
            old = before.folders.get(inode, {})
            added = {name: target for name, target in entries.items() if old.get(name) != target}
            removed = {name for name in old if name not in entries}
            if added or removed:
                self._disk.pending.append((inode, added, removed))
        self._keep()

    def _keep(self) -> None:
        synced = _State(dict(self._disk.synced.folders), dict(self._disk.synced.files))
        self.disks.append((self._now, _Disk(synced, list(self._disk.pending))))

    def _look(self) -> _State:
        state = _State()
        for parent, folders, files in os.walk(self.root):
            names = [(name, Path(parent, name)) for name in [*folders, *files]]
            inodes = {name: path.stat().st_ino for name, path in names if path.exists()}
            state.folders[Path(parent).stat().st_ino] = inodes
            for name in files:
                if name in inodes:
                    state.files[inodes[name]] = Path(parent, name).read_bytes()
                    self._hold(inodes[name], Path(parent, name))
            self._hold(Path(parent).stat().st_ino, Path(parent))
        return state

    def _hold(self, inode: int, path: Path) -> None:
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)


def _visible(disk: _Disk, root: int) -> list[_Change]:
    """The changes that a reader may see: not those of temporary names, nor inside of folders that have no other."""
    trees = [disk.synced, _State(_applied(disk.synced.folders, disk.pending))]
    seen: set[int] = set()
    found = [root]
    while found:
        inode = found.pop()
        seen.add(inode)
        found += {target for tree in trees for target in _entries(tree, inode).values()} - seen
    return [
        (folder, added, removed)
        for folder, added, removed in disk.pending
        if folder in seen and not all(map(_is_left_out, {*added, *removed}))
    ]


def _subsets(pending: list[_Change]) -> Iterator[list[_Change]]:
    """Which of the changes are on the disk: the first n, all but one, or one alone."""
    for count in range(len(pending) + 1):
        yield pending[:count]
    for place in range(len(pending)):
        yield pending[:place] + pending[place + 1 :]
        yield pending[place : place + 1]


def _contents(current: _State, synced: _State) -> Iterator[dict[int, bytes]]:
    """What the files hold: what was written, what was synced, or the half of what came since."""
    files = {**synced.files, **current.files}
    yield files
    yield {inode: synced.files.get(inode, b"") for inode in files}
    yield {inode: _half_written(synced.files.get(inode, b""), data) for inode, data in files.items()}


def _half_written(before: bytes, after: bytes) -> bytes:
    if before == after:
        return after
    kept = len(before) if after.startswith(before) else 0
    return after[: kept + (len(after) - kept) // 2]


def _applied(folders: dict[int, Entries], changes: list[_Change]) -> dict[int, Entries]:
    result = {inode: dict(entries) for inode, entries in folders.items()}
    for inode, added, removed in changes:
        entries = result.setdefault(inode, {})
        for name in removed:
            entries.pop(name, None)
        entries.update(added)
    return result


def _flat(tree: _State, inode: int) -> Any:
    if inode in tree.files:
        return tree.files[inode]
    return {name: _flat(tree, target) for name, target in sorted(_entries(tree, inode).items())}


def _entries(tree: _State, inode: int) -> Entries:
    entries = tree.folders.get(inode, {})
    return {name: target for name, target in entries.items() if not _is_left_out(name)}


def _is_left_out(name: str) -> bool:
    return name.startswith(TEMPORARY) or name == WORKERS


def _write(tree: _State, inode: int, path: Path) -> None:
    if inode in tree.files:
        path.write_bytes(tree.files[inode])
        return
    path.mkdir(parents=True)
    for name, target in _entries(tree, inode).items():
        _write(tree, target, path / name)
