"""Parquet tables that tell how they were made: text values in the footer, under keys that begin with `dreamloom.`.

The key `dreamloom.schema` holds the version of the format (dreamloom.base.versions).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit
from dreamloom.base.versions import TABLES

_PREFIX = "dreamloom."


def write_table(path: Path, rows: pa.Table, metadata: Mapping[str, str]) -> None:
    """Writes a table atomically, with `metadata` and the format's version in its footer.

    Args:
        path: the file to write.
        rows: the table; its own metadata is dropped.
        metadata: name, without the prefix → value.
    """
    values = {"schema": TABLES.version, **metadata}
    footer = {f"{_PREFIX}{name}": value for name, value in values.items()}
    with commit(path) as temporary:
        pq.write_table(rows.replace_schema_metadata(footer), temporary, compression="zstd")


def read_metadata(path: Path, stage: str) -> dict[str, str]:
    """Reads the values that `write_table` stored; the rows are not read.

    Args:
        path: a parquet file, or a path without a file.
        stage: what makes the table, for the error.

    Returns:
        Name, without the prefix → value; empty where the file does not exist.

    Raises:
        UserError: the file can't be read, or was written by a release with another major version of the format.
    """
    if not path.exists():
        return {}
    try:
        return metadata_of(pq.read_metadata(path), path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} can't be read ({error}); delete it, and {stage} makes it again.") from error


def metadata_of(footer: pq.FileMetaData, where: Path) -> dict[str, str]:
    """Returns the values that `write_table` stored in a footer.

    Args:
        footer: of the table.
        where: its file, for the error.

    Raises:
        UserError: it was written by a release with another major version of the format.
    """
    prefix = _PREFIX.encode()
    found = footer.metadata or {}
    values = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    metadata = {name.decode(): value.decode() for name, value in values.items()}
    TABLES.check(metadata.get("schema"), where)
    return metadata


def digest_table(rows: pa.Table) -> str:
    """Hashes the schema and the rows of a table, whatever its metadata and however it is chunked: 32 hex digits."""
    sink = _HashSink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), rows.schema.remove_metadata()) as stream:
        stream.write_table(rows.combine_chunks().replace_schema_metadata(None))
    return sink.hash.hexdigest()


class _HashSink:
    """A file to write to, which keeps only the hash of what is written."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
