"""Selects the rows of an index by the predicates, and counts what became of the others, with DuckDB.

DuckDB reads the index once, with all predicates, and writes the rows that pass into a temporary parquet file, in the
order of the index. All that follows (repeated URLs, which rows to take) reads that file alone, so memory stays flat
however long the index is. Beside what follows, or beside the first reading where that leaves cores idle, DuckDB reads
the sizes and scores once more, to count what each predicate on them drops.
"""

import glob
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import temporary_name
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection import SCHEMAS, Table
from dreamloom.scrape.index.bad_text import find_damaged, without_bad_text
from dreamloom.scrape.index.columns import Index
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.count import Count, counting, dropped_by_numbers, failing_numbers, first_failed
from dreamloom.scrape.index.predicates import check_aesthetic_scales, numeric_predicates, sql_string, text_predicates
from dreamloom.scrape.index.take import BATCH_ROWS, GROUP_ROWS, candidate_columns, mark_distinct, take_rows
from dreamloom.scrape.index.words import Words

_log = logging.getLogger(__name__)

_SETTINGS = {
    "memory_limit": f"{max(512, 128 * (os.cpu_count() or 1))}MB",  # for its threads; beyond it DuckDB writes to disk
    "enable_external_file_cache": False,  # the system's own cache is enough
    "autoload_known_extensions": False,  # remote files are read through fsspec
    "autoinstall_known_extensions": False,
}


@contextmanager
def select_rows(
    indexes: list[Index], config: FilterConfig, folder: Path, progress: Progress
) -> Iterator[tuple[Callable[[], Summary], Iterator[pa.Table]]]:
    """Yields what waits for the funnel, and the selected rows in parts: candidates without their key.

    Args:
        indexes: the index.
        config: which rows are selected.
        folder: where temporary files are written.
        progress: called with the number of rows read.

    Raises:
        UserError: the index lacks a column, can't be read, or a regular expression is wrong.
    """
    started = time.monotonic()
    check_aesthetic_scales(config, indexes)
    with (
        tempfile.TemporaryDirectory(prefix=temporary_name(), dir=folder) as temporary,
        duckdb.connect(config={**_SETTINGS, "temp_directory": temporary}) as database,
        counting(database) as count,
    ):
        # query_progress() needs the bar
        database.sql("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        _check_patterns(database, config.words)
        passed = Path(temporary) / "passed.parquet"
        rows = sum(index.rows + sum(index.unread.values()) for index in indexes)
        progress(0, rows)
        with _told(indexes):
            indexes, dropped = _scan_text(database, config, indexes, passed, count, _reporter(database, rows, progress))
        passing, distinct = pq.read_metadata(passed).num_rows, mark_distinct(database, config, passed)
        kept = min(distinct, config.limit or distinct)
        seconds = time.monotonic() - started

        def funnel() -> Summary:
            with _told(indexes):
                reasons = dict(sum((Counter(index.unread) for index in indexes), Counter())) | dropped()
            reasons |= {f"duplicate_{config.deduplicate_by}": passing - distinct, "limit": distinct - kept}
            return Summary(rows, kept, {reason: count for reason, count in reasons.items() if count}, seconds=seconds)

        progress(rows, rows, f"{kept} kept")
        yield funnel, take_rows(database, config, indexes, passed)


@contextmanager
def _told(indexes: list[Index]) -> Iterator[None]:
    """Tells of an index that can't be read by the name of the file."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # damaged files end in many of them
        if isinstance(error, OSError) and error.errno is not None:  # the system's own: a full disk
            raise
        file = find_damaged(indexes) or "The index"
        why = str(error).splitlines()[0]
        raise UserError(f"{file} can't be read ({why}); download it again, or leave it out.") from error


def _check_patterns(database: duckdb.DuckDBPyConnection, words: Words) -> None:
    for pattern in (*words.regex, *words.not_regex):
        try:
            database.execute("SELECT regexp_matches('', ?)", [pattern]).fetchall()
        except duckdb.Error as error:
            why = str(error).splitlines()[0].removeprefix("Invalid Input Error: ")
            raise UserError(
                f"{pattern!r} in `words` is not a regular expression of RE2 ({why}); correct it."
            ) from error


# Reading


def _reporter(database: duckdb.DuckDBPyConnection, rows: int, progress: Progress) -> Callable[[], None]:
    """Returns a function that reports how much of the running query is done."""

    def report() -> None:
        percent = database.query_progress()
        if percent > 0:
            progress(int(rows * percent / 100), rows)

    return report


def _scan_text(
    database: duckdb.DuckDBPyConnection,
    config: FilterConfig,
    indexes: list[Index],
    passed: Path,
    count: Count,
    progress: Callable[[], None],
) -> tuple[list[Index], Callable[[], dict[str, int]]]:
    """Scans the index as `_scan` does; where text is not UTF-8, again without its rows.

    Returns:
        The index that was read, and what `_scan` returns.
    """
    try:
        return indexes, _scan(database, config, indexes, passed, count, progress)
    except (duckdb.Error, OSError) as error:  # what DuckDB meets after the first rows is Arrow's OSError
        if "utf" not in str(error).lower():
            raise
    indexes = without_bad_text(indexes, passed.parent)
    return indexes, _scan(database, config, indexes, passed, count, progress)


def _scan(
    database: duckdb.DuckDBPyConnection,
    config: FilterConfig,
    indexes: list[Index],
    passed: Path,
    count: Count,
    progress: Callable[[], None],
) -> Callable[[], dict[str, int]]:
    """Writes the rows that pass all predicates into a parquet file.

    Returns:
        What waits for reason → dropped rows, in the order of the funnel.
    """
    numbers = [numeric_predicates(config, index) for index in indexes]
    texts = [text_predicates(config, index) for index in indexes]
    names, selects = candidate_columns(indexes), []
    for place, index in enumerate(indexes):
        relation = f"{_relation(database, index)} WHERE {_conjunction(numbers[place])}"
        selects.append(_query(place * _CODES, index, names, relation, texts[place]))
    failing = [
        failing_numbers(_relation(database, index), rules) for index, rules in zip(indexes, numbers, strict=True)
    ]
    is_narrow = sum(index.row_groups for index in indexes) < (os.cpu_count() or 1)  # a thread reads a row group
    counted = count(failing) if is_narrow else None
    counts = _write_passed(database, " UNION ALL ".join(selects), passed, progress)
    counted = counted or count(failing)

    def dropped() -> dict[str, int]:
        found = Counter({reason: 0 for rules in (*numbers, *texts) for reason in rules})
        for place, index in enumerate(indexes):
            reached = sum(rows for code, rows in counts.items() if code // _CODES == place)
            found.update(dropped_by_numbers(list(numbers[place]), index.rows, counted[place](), reached))
            found.update({reason: counts[place * _CODES + code] for code, reason in enumerate(texts[place], start=1)})
        return dict(found)

    return dropped


def _write_passed(
    database: duckdb.DuckDBPyConnection, query: str, passed: Path, progress: Callable[[], None]
) -> Counter[int]:
    """Writes the rows whose code says that they pass. Returns code → rows."""
    _log.info("query: %s", query)
    rows = database.sql(query).to_arrow_reader(BATCH_ROWS)
    counts: Counter[int] = Counter()
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(passed, rows.schema, **_FAST) as writer:
        for batch in rows:
            codes = batch.column(0)
            counts.update({each["values"]: each["counts"] for each in pc.value_counts(codes).to_pylist()})
            waiting.append(batch.filter(pc.equal(pc.bit_wise_and(codes, _CODES - 1), 0)))
            if sum(map(len, waiting)) >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
            progress()
        writer.write_table(pa.Table.from_batches(waiting, rows.schema))
    return counts


_FAST = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
"""How the temporary file is written: as small as with the defaults, in half of the time."""

_CODES = 16
"""More than the rules on text. A row's code is the place of its index times this, plus the rule it fails, or 0."""


def _relation(database: duckdb.DuckDBPyConnection, index: Index) -> str:
    filesystem = index.files[0].filesystem
    if filesystem is not None and not database.filesystem_is_registered(next(iter(_protocols(filesystem)))):
        database.register_filesystem(filesystem)
    # Prefetching, DuckDB holds whole row groups; of local files the system reads ahead, and takes no memory for it.
    database.sql(f"SET disable_parquet_prefetching = {str(filesystem is None).lower()}")
    files = ", ".join(sql_string(glob.escape(file.name)) for file in index.files)
    return f"read_parquet([{files}], hive_partitioning = false, binary_as_string = true)"


def _protocols(filesystem: Any) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)


def _conjunction(predicates: dict[str, str]) -> str:
    return " AND ".join(f"({predicate})" for predicate in predicates.values()) or "true"


def _query(code: int, index: Index, names: list[str], relation: str, texts: dict[str, str]) -> str:
    """Returns the query for rows of an index: a code each, and the rows that pass as candidates.

    Args:
        code: the code of rows that pass; for others the number of the rule that they fail is added.
        index: the index.
        names: the columns of the candidates.
        relation: the SQL of the rows to read.
        texts: the rules on text: reason → SQL.
    """
    inner = f"SELECT *, {first_failed(texts.values())} AS {_CODE} FROM {relation}"
    columns = ", ".join(f"CASE WHEN {_CODE} = 0 THEN {_as_candidate(index, n)} END AS {n}" for n in names)
    return f"SELECT {code} + {_CODE}::INTEGER AS code, {columns} FROM ({inner})"


_CODE = '"which rule on text this row fails"'
"""A column name that no index has."""


def _as_candidate(index: Index, name: str) -> str:
    """Returns SQL of a candidate's column; null where the index has none."""
    column, data_type = index.columns.get(name), SCHEMAS[Table.CANDIDATES].field(name).type
    if column is None:
        sql = "NULL"
    elif pa.types.is_string(data_type):
        sql = {
            "url": f"trim({column.text_sql})",
            "licence": f"nullif({column.text_sql}, '?')",
            "text": column.caption_sql,
        }.get(name, column.text_sql)
    else:
        sql = f"TRY_CAST({column.number_sql} AS {_SQL_TYPES[data_type]})"
    return f"CAST({sql} AS {_SQL_TYPES[data_type]})"


_SQL_TYPES = {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.float32(): "FLOAT"}
