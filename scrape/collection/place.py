"""Where a collection lies: in a folder, or at an address in a store (store_place.py)."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from dreamloom.base.files.atomic import remove_leftovers
from dreamloom.base.sharing.workers import Work, work_in
from dreamloom.base.tables.parquet_metadata import read_metadata, write_table
from dreamloom.scrape.collection.schema import Table


class Lease(Protocol):
    """Something that a worker has for itself."""

    def release(self) -> None:
        """Gives it back."""


class Worker(Protocol):
    """This process, among those that work on a collection (dreamloom.base.sharing.workers, store_workers)."""

    def lease(self, name: str) -> Lease | None:
        """Leases something, unless a worker has it that may be alive."""

    def describe_holder(self, name: str) -> str:
        """Names, for people, the process that has something; empty where nobody has."""

    def remove_leases_of_dead(self) -> None:
        """Removes what the dead had, and nobody has leased since."""

    def require_alive(self, *, look: bool = False) -> None:
        """Checks that nobody took this worker for dead."""

    def writers(self) -> set[str]:
        """Returns the tokens (atomic.process_token) of the workers that are not known to be dead."""

    def count(self) -> int:
        """Returns the number of workers that are not known to be dead, with this one."""


class Place(Protocol):
    """What lies of a collection where. Tables are named by their folders."""

    def refresh(self) -> None:
        """Sees what other processes have written since."""

    def work(self, work: Work | None) -> AbstractContextManager[Worker]:
        """Works here; see dreamloom.base.sharing.workers.work_in."""

    def parts(self, table: str) -> list[str]:
        """Returns the names of a table's parts, sorted."""

    def path(self, table: str, part: str) -> Path:
        """Returns a file of this machine that holds a part; nothing is there if there is no such part."""

    def metadata(self, table: str, part: str) -> dict[str, str]:
        """Reads how a part was made; see dreamloom.base.tables.parquet_metadata.read_metadata."""

    def begin(self, table: str, part: str) -> None:
        """Gets the folder of a part's images ready, for whoever has leased the part and makes it."""

    def put(self, table: str, part: str, rows: pa.Table, metadata: Mapping[str, str]) -> None:
        """Writes a part, with the images that its rows name, whole or not at all."""

    def remove(self, table: str, parts: Iterable[str]) -> None:
        """Removes parts, and the images of removed records."""

    def image(self, name: str) -> Path | bytes:
        """Returns an image, by its name in the records: its file, which may be missing, or its bytes."""

    def describe(self, name: str) -> str:
        """Returns where an image should be, for people."""

    def has_image(self, name: str) -> bool:
        """Tells whether an image is there."""

    def bring(self, names: Sequence[str]) -> None:
        """Gets images ready that will be asked for."""


@dataclass(frozen=True)
class FolderPlace:
    """A folder: a table is a folder in it, and a part and an image are files."""

    root: Path

    def refresh(self) -> None:
        """Does nothing: the folder is looked at each time."""

    def work(self, work: Work | None) -> AbstractContextManager[Worker]:
        """Works here; see dreamloom.base.sharing.workers.work_in."""
        return work_in(self.root, work)

    def parts(self, table: str) -> list[str]:
        """Returns the names of a table's parts, sorted."""
        return sorted(p.stem for p in (self.root / table).glob("[!.]*.parquet"))

    def path(self, table: str, part: str) -> Path:
        """Returns the file of a part."""
        return self.root / table / f"{part}.parquet"

    def metadata(self, table: str, part: str) -> dict[str, str]:
        """Reads how a part was made."""
        return read_metadata(self.path(table, part), "its stage")

    def begin(self, table: str, part: str) -> None:
        """Removes what a killed process left half written among a part's images."""
        remove_leftovers(self.root / "images" / part)

    def put(self, table: str, part: str, rows: pa.Table, metadata: Mapping[str, str]) -> None:
        """Writes a part, whose images are here already."""
        write_table(self.path(table, part), rows, metadata)

    def remove(self, table: str, parts: Iterable[str]) -> None:
        """Removes parts, and the images of removed records; all of it is ours."""
        for part in parts:
            if table == Table.RECORDS:
                shutil.rmtree(self.root / "images" / part, ignore_errors=True)
            self.path(table, part).unlink(missing_ok=True)  # another process may share this

    def image(self, name: str) -> Path | bytes:
        """Returns the file of an image."""
        return self.root / name

    def describe(self, name: str) -> str:
        """Returns the file of an image, for people."""
        return str(self.root / name)

    def has_image(self, name: str) -> bool:
        """Tells whether an image is there."""
        return (self.root / name).is_file()

    def bring(self, names: Sequence[str]) -> None:
        """Does nothing: they are here."""
