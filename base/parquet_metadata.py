"""The metadata of dreamloom's parquet files: how the rows were made, and by which version of the format."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit
from dreamloom.base.versions import TABLES

_PREFIX = "dreamloom."


def write_table(path: Path, rows: pa.Table, metadata: Mapping[str, str]) -> None:
    """Commits a table, whole or not at all, with its metadata as `dreamloom.<name>` and the format's version."""
    said = {f"{_PREFIX}{name}": value for name, value in {"schema": TABLES.version, **metadata}.items()}
    with commit(path) as temporary:
        pq.write_table(rows.replace_schema_metadata(said), temporary, compression="zstd")


def read_metadata(path: Path, stage: str) -> dict[str, str]:
    """What `write_table` was told, by name without the prefix; empty where there is no file.

    Args:
        stage: what makes the file again where it is damaged.

    Raises:
        UserError: the file can't be read, or was written by a release with another major version of the format.
    """
    if not path.exists():
        return {}
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} can't be read ({error}); delete it, and {stage} makes it again.") from error
    prefix = _PREFIX.encode()
    said = {k[len(prefix) :].decode(): v.decode() for k, v in metadata.items() if k.startswith(prefix)}
    TABLES.check(said.get("schema"), path)
    return said
