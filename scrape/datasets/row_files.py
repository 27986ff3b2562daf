"""Files of rows with images in them: parquet, and the Arrow files that datasets' save_to_disk leaves."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError

SUFFIXES = (".parquet", ".arrow")
_BATCH_ROWS = 64
"""Rows in memory at once; each may hold megabytes."""


class RowFile:
    """A file of rows, of which few are in memory at once."""

    def __init__(self, path: Path) -> None:
        """Reads the schema and the number of rows.

        Raises:
            UserError: the file can't be read.
        """
        self._file: pq.ParquetFile | pa.Table
        try:
            self._file = _map_arrow(path) if path.suffix.lower() == ".arrow" else pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            kind = path.suffix.lower().removeprefix(".")
            raise UserError(f"{path} can't be read as {kind} ({error}); download it again, or move it away.") from error

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._file.schema if isinstance(self._file, pa.Table) else self._file.schema_arrow

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return int(self._file.num_rows if isinstance(self._file, pa.Table) else self._file.metadata.num_rows)

    def read(self, start: int, end: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields the rows from `start` up to but not including `end` in batches, each with its first row's number."""
        for number, batch in self._batches(start, end, list(columns)):
            first, last = max(0, start - number), min(len(batch), end - number)
            if first < last:
                yield number + first, batch.slice(first, last - first)

    def _batches(self, start: int, end: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        if isinstance(self._file, pa.Table):
            for batch in self._file.select(columns).slice(start, end - start).to_batches(_BATCH_ROWS):
                yield start, batch
                start += len(batch)
            return
        following = 0
        for group in range(self._file.metadata.num_row_groups):
            number, following = following, following + self._file.metadata.row_group(group).num_rows
            if number >= end or following <= start:
                continue
            for batch in self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
                yield number, batch
                number += len(batch)


def _map_arrow(path: Path) -> pa.Table:
    """Maps an Arrow stream or file into memory; its rows are read when they are needed."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
