"""Copies a collection to another folder: resumable, and there whole or not at all."""

import contextlib
import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import TEMPORARY, commit, copy, fsync, fsync_all
from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.schema import Table
from dreamloom.scrape.collection.verify import find_damage


def copy_collection(collection: Collection, to: Path, progress: Progress = silent) -> None:
    """Copies a collection, of which nothing is written to, and checks the copy. A killed copy is gone on with.

    Args:
        collection: the collection.
        to: the folder to make.
        progress: called with the number of files done.

    Raises:
        UserError: `to` exists or lies in the collection; or the collection changed meanwhile, or is damaged.
    """
    if to.resolve().is_relative_to(collection.root.resolve()) and not to.exists():
        raise UserError(f"{to} lies in the collection itself; name a folder elsewhere.")
    with copying_to(to, str(collection.root)) as partial:
        before = state_of(collection)
        files = _files(collection.root)
        for stray in set(_files(partial)) - set(files):  # of an earlier try, and gone since
            (partial / stray).unlink()
        for done, file in enumerate(files, 1):
            _copy_file(collection, file, partial / file)
            progress(done, len(files))
        if state_of(collection) != before:
            raise changed(collection)


@contextlib.contextmanager
def copying_to(to: Path, origin: str) -> Iterator[Path]:
    """Yields a folder beside `to`, with what an earlier try left; it becomes `to` when what it holds is found whole.

    Args:
        to: the folder to make.
        origin: where the collection is copied from, for sentences.

    Raises:
        UserError: `to` exists, or what was copied is damaged.
    """
    if to.exists():
        raise UserError(f"{to} exists, and stays as it is; name another folder.")
    partial = to.with_name(f"{TEMPORARY}copy-{to.name}")
    with lock(partial):
        yield partial
        if damage := next(find_damage(Collection(partial)), None):
            file, fault = damage[0].relative_to(partial), damage[1]
            raise UserError(f"{origin}/{file}: {fault}; `dreamloom collection verify {origin}` tells more.")
        fsync_all(path for path in partial.rglob("*") if not path.is_symlink())
        os.rename(partial, to)
        fsync(to.parent)


def _copy_file(collection: Collection, file: Path, target: Path) -> None:
    source = collection.root / file
    try:
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            with commit(target, sync=False) as temporary:
                copy(source, temporary)
    except FileNotFoundError:
        raise changed(collection) from None


def _files(root: Path) -> list[Path]:
    """Returns the files of a collection, relative to it, without locks and what is still being written."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(name.startswith(".") for name in path.parts))


def state_of(collection: Collection) -> list[str]:
    """Returns what changes when a collection does."""
    digests = [
        f"{table} {part} {collection.digest(table, part)}" for table in Table for part in collection.parts(table)
    ]
    return digests + [part.name for part in collection.decision_files()]


def changed(collection: Collection) -> UserError:
    """Returns the error of a collection that was written to while it was copied."""
    return UserError(f"{collection.root} changed while it was copied; the same command goes on when that is done.")
