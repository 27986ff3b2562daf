"""Takes rows from the file of those that pass: each URL once, in the order that was asked for."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.scrape.collection import SCHEMAS, Table
from dreamloom.scrape.index.columns import Index
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.predicates import sql_string

_COLUMNS = [name for name in SCHEMAS[Table.CANDIDATES].names if name != "key"]
BATCH_ROWS = 40_960
"""Rows of the index in memory at once: twenty vectors of DuckDB."""
GROUP_ROWS = 2048
"""Minimum rows of a row group of the temporary file: small groups are cheap to write and to read."""


def candidate_columns(indexes: list[Index]) -> list[str]:
    """Returns the columns of candidates that some index has, and those that duplicates are found by."""
    return [name for name in _COLUMNS if name in ("url", "text") or any(name in index.columns for index in indexes)]


def mark_distinct(database: duckdb.DuckDBPyConnection, config: FilterConfig, passed: Path) -> int:
    """Creates the table `firsts`: the place of one row of each set of duplicates. Returns its number of rows."""
    identity = "md5_number(url)"
    if config.deduplicate_by == "url_text":
        identity += ", md5_number(coalesce(text, ''))"
    place = "min(file_row_number)"
    if config.take == "sample":  # by the rows alone, so that it is the same in whatever order the files are read
        place = "arg_min(file_row_number, (md5(coalesce(text, '')), file_row_number))"
    database.sql(
        f"CREATE TABLE firsts AS SELECT {place} AS place "
        f"FROM read_parquet({sql_string(str(passed))}, file_row_number = true) GROUP BY {identity}"
    )
    return int(database.sql("SELECT count(*) FROM firsts").fetchall()[0][0])


def take_rows(
    database: duckdb.DuckDBPyConnection, config: FilterConfig, indexes: list[Index], passed: Path
) -> Iterator[pa.Table]:
    """Yields the rows to take in their order, `part_rows` at a time; an empty table where there are none."""
    names = candidate_columns(indexes)
    batches = (
        _take_first(database, config, names, passed)
        if config.take == "first"
        else _take_sorted(database, config, names, passed)
    )
    waiting = pa.schema([pq.read_schema(passed).field(name) for name in names]).empty_table()
    tables = 0
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while len(waiting) >= config.part_rows:
            yield waiting.slice(0, config.part_rows)
            waiting, tables = waiting.slice(config.part_rows), tables + 1
    if not tables or len(waiting):
        yield waiting


def _take_first(
    database: duckdb.DuckDBPyConnection, config: FilterConfig, names: list[str], passed: Path
) -> Iterator[pa.RecordBatch]:
    """Yields the first distinct rows in the order of the file, so that nothing need be sorted."""
    limit = f"LIMIT {config.limit}" if config.limit else ""
    places = database.sql(f"SELECT place FROM firsts ORDER BY place {limit}").fetchnumpy()["place"]
    begin = 0
    for batch in pq.ParquetFile(passed, pre_buffer=False).iter_batches(GROUP_ROWS, columns=names, use_threads=False):
        inside = slice(*np.searchsorted(places, (begin, begin + len(batch))))
        yield batch.take(pa.array(places[inside] - begin))
        begin += len(batch)


def _take_sorted(
    database: duckdb.DuckDBPyConnection, config: FilterConfig, names: list[str], passed: Path
) -> pa.RecordBatchReader:
    order = {
        "best": "aesthetic DESC NULLS LAST, file_row_number",
        # by the row alone, so that it is the same however the rows are spread over files
        "sample": f"md5('{config.seed} ' || url || coalesce(text, '')), url, text"
        if config.deduplicate_by == "url_text"
        else f"md5('{config.seed} ' || url), url",
    }[config.take]
    return database.sql(
        f"SELECT {', '.join(names)} FROM read_parquet({sql_string(str(passed))}, file_row_number = true) "
        f"WHERE file_row_number IN (SELECT place FROM firsts) "
        f"ORDER BY {order} {f'LIMIT {config.limit}' if config.limit else ''}"
    ).to_arrow_reader(BATCH_ROWS)
