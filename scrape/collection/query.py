"""Runs SQL over the tables of a collection."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from dreamloom.base.errors import UserError

_SETTINGS = {"enable_external_access": "false", "lock_configuration": "true"}
"""A query can read the registered tables only: no other files, and it can't write."""


Tables = Mapping[str, pa.Table | tuple[pa.Schema, Sequence[Path]]]
"""Name → a table, or its schema and part files. DuckDB reads only the columns and rows that a statement needs, so
these may be larger than memory."""


def query(sql: str, tables: Tables) -> pa.Table:
    """Runs one SQL statement in DuckDB's dialect.

    Args:
        sql: the statement.
        tables: what it can ask for.

    Raises:
        UserError: the statement is invalid, or uses anything besides the tables.
    """

    def run(database: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        if len(duckdb.extract_statements(sql)) != 1:
            raise UserError("A query is one SQL statement, such as: select caption from captions limit 10")
        return database.sql(sql)

    return _run(run, tables, "The query")


def filter_rows(view: str, where: str, columns: str, tables: Tables) -> pa.Table:
    """Returns the rows that meet a condition of somebody's.

    Args:
        view: the statement that selects all rows.
        where: the condition: one expression in DuckDB's dialect on the columns of the view.
        columns: what to return of each row.
        tables: what both can ask for.

    Raises:
        UserError: the condition is no expression, or uses anything besides the tables.
    """
    return _run(lambda database: database.sql(view).filter(where).project(columns), tables, f"The condition {where!r}")


def _run(
    make: Callable[[duckdb.DuckDBPyConnection], duckdb.DuckDBPyRelation], tables: Tables, subject: str
) -> pa.Table:
    with duckdb.connect(config=_SETTINGS) as database:
        for name, table in tables.items():
            database.register(name, table if isinstance(table, pa.Table) else _dataset(*table))
        try:
            return make(database).to_arrow_table()
        except (duckdb.Error, pa.ArrowException) as error:
            told = " ".join(str(error).partition("\n\nLINE ")[0].split())  # without the drawing of the statement
            raise UserError(f"{subject} failed: {told}") from error


def _dataset(schema: pa.Schema, parts: Sequence[Path]) -> ds.Dataset:
    schema = pa.schema([_readable(field) for field in schema])
    return ds.dataset([str(path) for path in parts], schema=schema, format="parquet") if parts else _empty(schema)


def _empty(schema: pa.Schema) -> ds.Dataset:
    return ds.dataset(schema.empty_table())


def _readable(field: pa.Field) -> pa.Field:
    """DuckDB has no 16-bit floats: a list of them is read as 32-bit ones."""
    return field.with_type(pa.list_(pa.float32())) if field.type == pa.list_(pa.float16()) else field
