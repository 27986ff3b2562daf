"""Compares what lies in a collection with the hashes that its tables keep. Reads every byte, and writes nothing."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.tables.parquet_metadata import digest_table
from dreamloom.base.threads import map_ordered
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.records import file_sha256
from dreamloom.scrape.collection.schema import SCHEMAS, Row, Status, Table

_THREADS = min(8, os.cpu_count() or 1)


def find_damage(collection: Collection, progress: Progress = silent) -> Iterator[tuple[Path, str]]:
    """Yields each table's part and each image that is not what it was when it was stored, with what is amiss.

    Args:
        collection: the collection.
        progress: called with the number of images compared.
    """
    try:
        collection.decisions()
    except UserError as error:
        yield collection.root / "decisions", str(error)
    for table in Table:
        for part in collection.parts(table):
            if fault := _fault_of_part(collection, table, part):
                yield collection.part_path(table, part), fault
            elif table is Table.RECORDS:
                yield from _damaged_images(collection, part, progress)


def _fault_of_part(collection: Collection, table: Table, part: str) -> str | None:
    try:
        wanted = collection.digest(table, part)
        rows = pq.read_table(collection.part_path(table, part), partitioning=None)
    except (UserError, OSError, pa.ArrowException) as error:
        return str(error)
    written = pa.schema([SCHEMAS[table].field(name) for name in rows.column_names if name in SCHEMAS[table].names])
    content = rows.select(written.names).cast(written)
    is_whole = wanted in (digest_table(content), digest_table(_as_written_before(content)))
    return None if is_whole else "its rows are not those that were written"


def _as_written_before(rows: pa.Table) -> pa.Table:
    """Returns rows with missing lists as earlier releases hashed them, which parquet does not give back."""
    columns = [
        pa.nulls(len(rows), field.type)
        if pa.types.is_list(field.type) and rows[field.name].null_count == len(rows)
        else rows[field.name]
        for field in rows.schema
    ]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _damaged_images(collection: Collection, part: str, progress: Progress) -> Iterator[tuple[Path, str]]:
    columns = ["status", "image", "bytes", "image_sha256"]
    rows = [row for row in collection.read(Table.RECORDS, part, columns).to_pylist() if row["status"] == Status.OK]
    for done, (row, fault) in enumerate(
        zip(rows, map_ordered(partial(_fault_of_image, collection), rows, _THREADS, ahead=4 * _THREADS), strict=True), 1
    ):
        progress(done, len(rows), f"part {part}")
        if fault:
            yield collection.root / row["image"], fault


def _fault_of_image(collection: Collection, row: Row) -> str | None:
    file = collection.root / row["image"]
    try:
        if row["image_sha256"] is None:  # records of an older release
            return None if file.stat().st_size == row["bytes"] else "has another size than its records say"
        return None if file_sha256(file) == row["image_sha256"] else "has other bytes than its records say"
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
