"""SQL over the tables of a collection, read straight from their parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from dreamloom.base.errors import UserError

_SETTINGS = {"enable_external_access": "false", "lock_configuration": "true"}
"""A query sees the tables and nothing else: it can neither read other files nor write any."""


def query(sql: str, tables: Mapping[str, tuple[pa.Schema, Sequence[Path]]]) -> pa.Table:
    """Runs one SQL statement of DuckDB's dialect.

    Only the columns and rows that the statement needs are read, so tables may be larger than memory.

    Args:
        tables: name → schema and part files.

    Raises:
        UserError: the statement is wrong, or asks for something else than the tables.
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
