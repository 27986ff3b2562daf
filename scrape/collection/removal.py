"""Removes what dreamloom made of a collection. Decisions, and files that it did not make, stay where they are."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.files.atomic import TEMPORARY
from dreamloom.base.sharing.workers import FOLDER as WORKERS
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.decisions import FOLDER
from dreamloom.scrape.collection.schema import Table

_OURS = re.compile(
    rf"({'|'.join(Table)})/([^/]+\.parquet|\.journal-[^/]+\.jsonl)|images/[^/]+/[0-9a-f]{{32}}\.\w+|(logs|bulk)/.*|"
    rf"\.lock|{re.escape(WORKERS)}/.*|(.*/)?{re.escape(TEMPORARY)}.*"
)
"""Paths in a collection that stages write; images are called by their keys."""


@dataclass(frozen=True)
class CollectionFiles:
    """The files of a collection, by what would become of them."""

    made: Sequence[Path]
    """Made by stages: they can go."""
    decisions: Sequence[Path]
    """What somebody said of single images, which nothing can make again."""
    foreign: Sequence[Path]
    """Not made by dreamloom."""
    bytes: int
    """What the removal frees; a file that is linked elsewhere, too, frees none."""


def list_files(collection: Collection) -> CollectionFiles:
    """Lists the files of a collection; links are not followed."""
    made, decisions, foreign = list[Path](), list[Path](), list[Path]()
    for file in _files(collection.root):
        name = file.relative_to(collection.root).as_posix()
        is_decision = name.startswith(f"{FOLDER}/") and TEMPORARY not in name
        (decisions if is_decision else made if _OURS.fullmatch(name) else foreign).append(file)
    stats = [file.lstat() for file in made]
    freed = sum(stat.st_size for stat in stats if stat.st_nlink == 1)
    return CollectionFiles(made, decisions, foreign, freed)


def remove_collection(collection: Collection) -> CollectionFiles:
    """Removes what stages made of a collection, and the folders that are empty then.

    Records go first, so after a kill what is left is no collection that misses images; the same call goes on.

    Returns:
        What there was.

    Raises:
        UserError: another process works on this collection.
    """
    with collection.lock():
        files = list_files(collection)
        for file in sorted(files.made, key=lambda file: file.parent.name != Table.RECORDS):
            if file.parent.name != WORKERS:
                file.unlink(missing_ok=True)
    if not any((collection.root / WORKERS).glob("worker-*")):
        shutil.rmtree(collection.root / WORKERS, ignore_errors=True)
    for folder, _, _ in os.walk(collection.root, topdown=False):
        with contextlib.suppress(OSError):  # something stays in it
            os.rmdir(folder)
    return files


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        yield from (Path(folder, name) for name in [*names, *linked])
