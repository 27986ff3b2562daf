"""What DuckDB refuses with the whole query: rows whose text is not UTF-8 are left out, damaged files are named."""

import logging
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.files.atomic import temporary_name
from dreamloom.scrape.index.columns import Index
from dreamloom.scrape.index.files import IndexFile

_log = logging.getLogger(__name__)

NOT_UTF8 = "not_utf8"
"""The funnel's name for these rows."""


def without_bad_text(indexes: list[Index], folder: Path) -> list[Index]:
    """Returns the index with copies of the files that have such rows, without them; a warning names each file.

    Args:
        indexes: the index.
        folder: where temporary files are written.
    """
    cleaned = []
    for index in indexes:
        columns = sorted({column.name for column in index.columns.values()})
        files = [_clean(file, columns, folder) for file in index.files]
        local = [file for file in files if file.filesystem is None]
        remote = [file for file in files if file.filesystem is not None]
        for group in filter(None, (remote, local) if remote else (local,)):
            footers = [file.metadata() for file in group]
            rows, groups = sum(f.num_rows for f in footers), sum(f.num_row_groups for f in footers)
            cleaned.append(replace(index, files=tuple(group), rows=rows, row_groups=groups))
    return cleaned


def find_damaged(indexes: list[Index]) -> IndexFile | None:
    """Returns the first file that can't be read to its end, in the columns of the index; None: all can be."""
    for index in indexes:
        columns = sorted({column.name for column in index.columns.values()})
        for file in index.files:
            try:
                with file.open() as stream, pq.ParquetFile(stream) as parquet:
                    for _ in parquet.iter_batches(columns=columns):
                        pass
            except (pa.ArrowException, OSError):
                return file
    return None


def _clean(file: IndexFile, columns: list[str], folder: Path) -> IndexFile:
    with file.open() as stream, pq.ParquetFile(stream) as parquet:
        bad = sum(len(batch) - sum(map(len, _good(_plain(batch)))) for batch in parquet.iter_batches(columns=columns))
        if not bad:
            return file
        path = folder / temporary_name(".parquet")
        schema = pa.schema([field for field in parquet.schema_arrow if field.name in columns])
        with pq.ParquetWriter(path, schema) as writer:
            for batch in parquet.iter_batches(columns=columns):
                for good in _good(_plain(batch)):
                    writer.write_table(pa.Table.from_batches([good]).select(schema.names).cast(schema))
    tell_bad_text(file, bad)
    dropped = {**file.dropped, NOT_UTF8: bad}
    return replace(file, name=str(path), filesystem=None, listed_as=str(file), dropped=dropped)


def tell_bad_text(file: IndexFile, rows: int) -> None:
    """Logs that so many rows of a file are left out; nothing where there are none."""
    if rows:
        _log.warning("%s: %s rows have text that is not UTF-8, and are left out.", file, f"{rows:,}")


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a batch whose texts are in its rows, and in no dictionary, which one bad text would make bad."""
    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _good(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Returns the rows that are whole, in order."""
    try:
        for column in batch.columns:
            column.validate(full=True)
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):  # DuckDB reads it as text
                column.cast(pa.large_string())
        return [batch]
    except pa.ArrowInvalid:
        if len(batch) == 1:
            return []
        half = len(batch) // 2  # taken, as a slice of lists still has the texts of the others
        return [*_good(batch.take(pa.array(range(half)))), *_good(batch.take(pa.array(range(half, len(batch)))))]
