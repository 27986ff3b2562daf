"""Files of rows with images in them: parquet, and the Arrow files that datasets' save_to_disk leaves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import refuse_repeated
from dreamloom.base.text import is_utf8

SUFFIXES = (".parquet", ".arrow")
_BATCH_ROWS = 64
"""Rows in memory at once; each may hold megabytes."""


class RowFile:
    """A file of rows, of which few are in memory at once."""

    def __init__(self, path: Path) -> None:
        """Reads the schema and the number of rows.

        Raises:
            UserError: the file can't be read, or claims more rows than it has bytes.
        """
        self._path = path
        self._file: pq.ParquetFile | pa.Table
        if not is_utf8(str(path)):
            raise UserError(f"{path} has a name that is not UTF-8; rename it.")
        try:
            self._file = _map_arrow(path) if path.suffix.lower() == ".arrow" else pq.ParquetFile(path)
            self._names = list(self.schema.names)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last for names that are damaged
            kind = path.suffix.lower().removeprefix(".")
            raise UserError(f"{path} can't be read as {kind} ({error}); download it again, or move it away.") from error
        if self.num_rows > (size := path.stat().st_size):  # nothing costs nothing, and each row is a record
            raise UserError(f"{path} claims {self.num_rows:,} rows in {size:,} bytes; move it away.")

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._file.schema if isinstance(self._file, pa.Table) else self._file.schema_arrow

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return int(self._file.num_rows if isinstance(self._file, pa.Table) else self._file.metadata.num_rows)

    def read(self, start: int, end: int, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yields the rows from `start` up to but not including `end` with their numbers; None: it is damaged.

        Raises:
            UserError: there are two columns of one of these names.
        """
        try:
            refuse_repeated([name for name in self._names if name in columns])
        except DocumentError as error:
            raise UserError(f"{self._path}: {error}.") from error
        following = start
        for number, batch in self._batches(start, end, list(columns)):
            yield from ((damaged, None) for damaged in range(following, number))
            for place in range(max(0, start - number), min(len(batch), end - number)):
                yield number + place, {name: _value(batch.column(name)[place]) for name in columns}
            following = max(start, number + len(batch))
        yield from ((damaged, None) for damaged in range(following, end))

    def _batches(self, start: int, end: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields rows in batches, each with its first row's number; what can't be read is left out."""
        if isinstance(self._file, pa.Table):
            for mapped in self._file.select(columns).slice(start, end - start).to_batches():
                batch = _sound(mapped)
                for first in range(0, len(batch), _BATCH_ROWS):
                    yield start + first, batch.slice(first, _BATCH_ROWS)
                start += len(batch)
            return
        following = 0
        for group in range(self._file.metadata.num_row_groups):
            number, following = following, following + self._file.metadata.row_group(group).num_rows
            if number >= end or following <= start:
                continue
            try:
                for batch in self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
                    yield number, batch
                    number += len(batch)
            except (OSError, pa.ArrowException) as error:
                if isinstance(error, OSError) and error.errno is not None:  # the system's own
                    raise


def _value(scalar: Any) -> Any:
    """Returns the value of a cell; None where it can't be read: text that is not UTF-8, a date in no calendar."""
    try:
        return scalar.as_py(maps_as_pydicts="lossy")  # else a map is a list of pairs, as captions are
    except (ValueError, OverflowError):
        return None


def _sound(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns rows of a mapped file, in which what can't be read is null.

    An Arrow file is taken as it is, so places that it names may lie outside of it, and its text need not be UTF-8.
    Reading such a value ends the process.
    """
    return pa.RecordBatch.from_arrays([_sound_column(column) for column in batch.columns], schema=batch.schema)


def _sound_column(column: pa.Array) -> pa.Array:
    if _is_sound(column):
        return column
    if pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type):  # a row of it may hide any damage
        return pa.nulls(len(column), column.type)
    cells = (column.slice(place, 1) for place in range(len(column)))
    return pa.array([cell[0].as_py() if _is_sound(cell) else None for cell in cells], column.type)


def _is_sound(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _map_arrow(path: Path) -> pa.Table:
    """Maps an Arrow stream or file into memory; its rows are read when they are needed."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
