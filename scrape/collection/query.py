"""Runs SQL over the tables of a collection."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from dreamloom.base.errors import UserError

_SETTINGS = {"enable_external_access": "false", "lock_configuration": "true"}
"""A query can read the registered tables only: no other files, and it can't write."""


def query(sql: str, tables: Mapping[str, tuple[pa.Schema, Sequence[Path]]]) -> pa.Table:
    """Runs one SQL statement in DuckDB's dialect.

    DuckDB reads only the columns and rows that the statement needs, so tables may be larger than memory.

    Args:
        sql: the statement.
        tables: name → schema and part files.

    Raises:
        UserError: the statement is invalid, or uses anything besides the tables.
    """
    with duckdb.connect(config=_SETTINGS) as database:
        for name, (schema, parts) in tables.items():
            database.register(name, _dataset(schema, parts))
        try:
            if len(duckdb.extract_statements(sql)) != 1:
                raise UserError("A query is one SQL statement, such as: select caption from captions limit 10")
            return database.sql(sql).to_arrow_table()
        except (duckdb.Error, pa.ArrowException) as error:
            raise UserError(f"The query failed: {error}") from error


def _dataset(schema: pa.Schema, parts: Sequence[Path]) -> ds.Dataset:
    schema = pa.schema([_readable(field) for field in schema])
    return ds.dataset([str(path) for path in parts], schema=schema, format="parquet") if parts else _empty(schema)


def _empty(schema: pa.Schema) -> ds.Dataset:
    return ds.dataset(schema.empty_table())


def _readable(field: pa.Field) -> pa.Field:
    """DuckDB has no 16-bit floats: a list of them is read as 32-bit ones."""
    return field.with_type(pa.list_(pa.float32())) if field.type == pa.list_(pa.float16()) else field
