"""Training sets whose images stay where they are: a table says in which shard of a store each lies.

    <workspace>/dataset.parquet     in a folder or at an address; it stands for <workspace>/dataset, and for
                                    <workspace>/heldout with a folder for each kind

Balance writes the table, which is its manifest with the columns of PLACES, and training reads it. What a training
folder would have beside an image, a caption in a .txt and settings in a .yaml, is in the table.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import TRAINING_MANIFEST
from dreamloom.base.files.remote import address_of, is_remote
from dreamloom.base.files.remote_files import SHARD_CACHE_GB, list_files, whole_file
from dreamloom.base.tables.parquet_metadata import metadata_of, read_metadata

PLACES = pa.schema(
    [
        pa.field("shard", pa.string()),  # its address; without "://" it lies beside the table
        pa.field("offset", pa.int64()),  # the image's first byte there
        pa.field("length", pa.int64()),  # its bytes
        pa.field("text", pa.string()),  # the caption, where the file's name can't hold it
        pa.field("settings", pa.string()),  # as YAML, where it is shown in another way than its folder
    ]
)
"""Columns of the table beside `file`, the image's path in the workspace; null where the image is dropped."""

_MULTIPLIES, _HELD_OUT = "multiplies", "held_out"


class StreamedImage(NamedTuple):
    """An image of a training set."""

    name: str
    """Its path inside the set."""
    shard: str
    """The address or the path of its shard."""
    offset: int
    length: int
    text: str | None
    settings: str | None


@dataclass(frozen=True)
class StreamedSet:
    """The images of a training set, or those that are held out."""

    workspace: str
    """Folder or address of the table."""
    inside: str
    """dataset, heldout, or heldout/<kind>."""

    def images(self) -> Iterator[StreamedImage]:
        """Yields the images, in order of the table.

        Raises:
            UserError: the table can't be read.
        """
        begin = f"{self.inside}/"
        for rows in self._rows(["file", *PLACES.names]):
            for file, shard, *rest in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                place = shard if is_remote(shard) else f"{self.workspace}/{shard}"
                yield StreamedImage(file.removeprefix(begin), place, *rest)

    def kinds(self) -> list[str]:
        """Returns the folders that images lie in, below this set."""
        begin = f"{self.inside}/"
        files = (file for rows in self._rows(["file"]) for file in rows["file"].to_pylist())
        return sorted({file.removeprefix(begin).partition("/")[0] for file in files})

    def _rows(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yields the rows of the images of this set."""
        import pyarrow.compute as pc  # takes long to load, and is needed only here

        with self._open() as table:
            for batch in table.iter_batches(columns=columns):
                yield batch.filter(pc.fill_null(pc.starts_with(batch["file"], f"{self.inside}/"), False))

    def multiplies(self) -> dict[str, str]:
        """Returns folder → what multiply.txt would say in it."""
        return dict(json.loads(self.metadata()[_MULTIPLIES])) if self.inside == "dataset" else {}

    def held_out(self) -> dict[str, Any]:
        """Returns what is known of held-out images, as JSON types (dreamloom.base.tables.held_out)."""
        return dict(json.loads(self.metadata()[_HELD_OUT]))

    def metadata(self) -> dict[str, str]:
        """Returns how the table was made.

        Raises:
            UserError: it can't be read, or a newer release wrote it in another way.
        """
        with self._open() as table:
            return metadata_of(table.metadata, Path(self.workspace) / TRAINING_MANIFEST)

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        file = f"{self.workspace}/{TRAINING_MANIFEST}"
        try:
            if is_remote(file):
                with whole_file(file, SHARD_CACHE_GB) as stream, pq.ParquetFile(stream) as table:
                    yield table
            else:
                with pq.ParquetFile(file) as table:
                    yield table
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} can't be read ({error}); run balance, which makes it.") from error


def streamed_metadata(multiplies: Mapping[str, str], held_out: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the table says of all images, for its footer; see `StreamedSet`."""
    return {_MULTIPLIES: json.dumps(multiplies), _HELD_OUT: json.dumps(held_out)}


def find_streamed_set(folder: Path) -> StreamedSet | None:
    """Finds the set that a folder or an address stands for, as it is now; None: it stands for none.

    Raises:
        UserError: an address can't be read.
    """
    address = address_of(folder)
    parts = (address or str(folder.absolute())).split("/")
    length = 1 if parts[-1] in ("dataset", "heldout") else 2 if parts[-2:-1] == ["heldout"] else 0
    if not length or (address is None and folder.exists()):
        return None
    found = StreamedSet("/".join(parts[:-length]), "/".join(parts[-length:]))
    table = f"{found.workspace}/{TRAINING_MANIFEST}"
    if address is None:
        is_there = _MULTIPLIES in read_metadata(Path(table), "balance")
    else:
        is_there = bool(list_files(table)) and _MULTIPLIES in found.metadata()
    return found if is_there else None


def has_training_set(folder: Path) -> bool:
    """Tells whether a workspace's dataset is there: a folder, or one whose images are in shards."""
    return folder.is_dir() or find_streamed_set(folder) is not None
