"""Which rows of an index are taken, and what became of the others: DuckDB's reading by the predicates.

DuckDB reads the index once by all predicates: what passes goes into a temporary parquet file, in the order of the
index. That file is all that the rest works on (URLs that stand twice, what to take), so memory stays flat however long
the index is. Then it reads the sizes and scores alone once more, to count what each predicate on them drops.
"""

import glob
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import TEMPORARY
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection import SCHEMAS, Table
from dreamloom.scrape.index.columns import Index
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.predicates import check_aesthetic_scales, numeric_predicates, sql_string, text_predicates
from dreamloom.scrape.index.words import Words

_COLUMNS = [name for name in SCHEMAS[Table.CANDIDATES].names if name != "key"]
_SETTINGS = {
    "memory_limit": f"{max(512, 128 * (os.cpu_count() or 1))}MB",  # by its threads; beyond it DuckDB writes to disk
    "enable_external_file_cache": False,  # nothing is read so often that the system's own cache did not do
    "autoload_known_extensions": False,  # far files are read through fsspec
    "autoinstall_known_extensions": False,
}


@contextmanager
def select_rows(
    indexes: list[Index], config: FilterConfig, folder: Path, progress: Progress
) -> Iterator[tuple[Summary, Iterator[pa.Table]]]:
    """Reads the index, and gives the funnel and the chosen rows, in parts, as candidates without their key.

    Args:
        folder: where what must be kept meanwhile lies.
    """
    begun = time.monotonic()
    check_aesthetic_scales(config, indexes)
    with (
        tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-", dir=folder) as temporary,
        duckdb.connect(config={**_SETTINGS, "temp_directory": temporary}) as database,
    ):
        database.sql("SET enable_progress_bar = true; SET enable_progress_bar_print = false")  # so that it can be asked
        _check_patterns(database, config.words)
        passed = Path(temporary) / "passed.parquet"
        funnel = Summary(rows=sum(index.rows for index in indexes))
        progress(0, funnel.rows)
        try:
            funnel.dropped = _scan(database, config, indexes, passed, _reporter(database, funnel.rows, progress))
        except duckdb.Error as error:  # damaged files end in many of them
            raise UserError(f"The index can't be read: {str(error).splitlines()[0]}") from error
        found = funnel.rows - sum(funnel.dropped.values())
        distinct = _mark_first(database, config, passed)
        funnel.kept = min(distinct, config.limit or distinct)
        repeated = f"duplicate_{config.deduplicate_by}"
        dropped = {**funnel.dropped, repeated: found - distinct, "limit": distinct - funnel.kept}
        funnel.dropped = {reason: count for reason, count in dropped.items() if count}
        funnel.seconds = time.monotonic() - begun
        progress(funnel.rows, funnel.rows, f"{funnel.kept} kept")
        yield funnel, _taken(database, config, indexes, passed)


def _check_patterns(database: duckdb.DuckDBPyConnection, words: Words) -> None:
    for pattern in (*words.regex, *words.not_regex):
        try:
            database.execute("SELECT regexp_matches('', ?)", [pattern]).fetchall()
        except duckdb.Error as error:
            why = str(error).splitlines()[0].removeprefix("Invalid Input Error: ")
            raise UserError(f"{pattern!r} in `words` is no regular expression of RE2's ({why}); mend it.") from error


# The reading


def _reporter(database: duckdb.DuckDBPyConnection, rows: int, progress: Progress) -> Callable[[], None]:
    """Tells how much of the query that runs is done."""

    def report() -> None:
        percent = database.query_progress()
        if percent > 0:
            progress(int(rows * percent / 100), rows)

    return report


def _scan(
    database: duckdb.DuckDBPyConnection,
    config: FilterConfig,
    indexes: list[Index],
    passed: Path,
    progress: Callable[[], None],
) -> dict[str, int]:
    """Writes the rows that pass all predicates.

    Returns:
        Reason → rows dropped, in the order of the funnel.
    """
    numbers = [numeric_predicates(config, index) for index in indexes]
    texts = [text_predicates(config, index) for index in indexes]
    names, selects = _known(indexes), []
    for place, index in enumerate(indexes):
        rows_of_it = f"{_source(database, index)} WHERE {_all_of(numbers[place])}"
        selects.append(_passing(place * _CODES, index, names, rows_of_it, texts[place]))
    rows = database.sql(" UNION ALL ".join(selects)).to_arrow_reader(_BATCH_ROWS)
    counts: Counter[int] = Counter()
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(passed, rows.schema) as writer:
        for batch in rows:
            codes = batch.column(0)
            counts.update({each["values"]: each["counts"] for each in pc.value_counts(codes).to_pylist()})
            waiting.append(batch.filter(pc.equal(pc.bit_wise_and(codes, _CODES - 1), 0)))
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
            progress()
        writer.write_table(pa.Table.from_batches(waiting, rows.schema))
    dropped = Counter({reason: 0 for rules in (*numbers, *texts) for reason in rules})
    for place, index in enumerate(indexes):
        reached = sum(count for code, count in counts.items() if code // _CODES == place)
        dropped.update(_dropped_by_numbers(database, index, numbers[place], reached))
        dropped.update({reason: counts[place * _CODES + code] for code, reason in enumerate(texts[place], start=1)})
    return dict(dropped)


_CODES = 16
"""More than there are rules on text. A row's code is its index's place times this, plus which rule it fails, or 0."""
_BATCH_ROWS = 40_960
"""Rows of the index in memory at once: twenty of DuckDB's vectors."""
_GROUP_ROWS = 2048
"""Rows, at least, of a row group of the temporary file: few are cheap to write, and to read."""


def _dropped_by_numbers(
    database: duckdb.DuckDBPyConnection, index: Index, predicates: dict[str, str], passed: int
) -> dict[str, int]:
    """Reason → rows that it is the first to drop.

    Args:
        passed: how many rows no predicate drops, so that the last one, which is left of them, need not be read again.
    """
    if len(predicates) < 2:
        return dict.fromkeys(predicates, index.rows - passed)
    first, *others, last = predicates
    why = _first_failed([predicates[reason] for reason in others])
    query = f"SELECT {why}, count(*) FROM {_source(database, index)} WHERE {predicates[first]} GROUP BY 1"
    counts = dict(database.sql(query).fetchall())
    left = counts.get(0, 0)
    by_others = {reason: counts.get(number, 0) for number, reason in enumerate(others, start=1)}
    return {first: index.rows - sum(counts.values()), **by_others, last: left - passed}


def _source(database: duckdb.DuckDBPyConnection, index: Index) -> str:
    store = index.files[0].store
    if store is not None and not database.filesystem_is_registered(next(iter(_protocols(store)))):
        database.register_filesystem(store)
    # Reading ahead, DuckDB holds whole row groups; here the system does it, and takes no memory for it.
    database.sql(f"SET disable_parquet_prefetching = {str(store is None).lower()}")
    files = ", ".join(sql_string(glob.escape(file.name)) for file in index.files)
    return f"read_parquet([{files}], hive_partitioning = false, binary_as_string = true)"


def _protocols(store: Any) -> tuple[str, ...]:
    return (store.protocol,) if isinstance(store.protocol, str) else tuple(store.protocol)


def _all_of(predicates: dict[str, str]) -> str:
    return " AND ".join(f"({predicate})" for predicate in predicates.values()) or "true"


def _first_failed(predicates: Iterable[str]) -> str:
    """SQL of the number of the first that is not true, from 1 on; 0 where all are."""
    cases = "".join(f" WHEN ({sql}) IS NOT TRUE THEN {number}" for number, sql in enumerate(predicates, start=1))
    return f"CASE{cases} ELSE 0 END::USMALLINT" if cases else "0"


def _passing(code: int, index: Index, names: list[str], rows: str, texts: dict[str, str]) -> str:
    """The query for some of an index's rows: a code, and what passes as candidates.

    Args:
        code: of the rows that pass; that of others is higher by the number of the rule that they fail.
        names: the candidates' columns to give.
    """
    inner = f"SELECT *, {_first_failed(texts.values())} AS {_CODE} FROM {rows}"
    columns = ", ".join(f"CASE WHEN {_CODE} = 0 THEN {_as_candidate(index, n)} END AS {n}" for n in names)
    return f"SELECT {code} + {_CODE}::INTEGER AS code, {columns} FROM ({inner})"


def _known(indexes: list[Index]) -> list[str]:
    """The candidates' columns that some index has, and those that all is told apart by."""
    return [name for name in _COLUMNS if name in ("url", "text") or any(name in index.columns for index in indexes)]


_CODE = '"which rule on text this row fails"'
"""A name that no index has."""


def _as_candidate(index: Index, name: str) -> str:
    """A candidate's column, null where the index has none."""
    column, kind = index.columns.get(name), SCHEMAS[Table.CANDIDATES].field(name).type
    if column is None:
        sql = "NULL"
    elif pa.types.is_string(kind):
        sql = {"url": f"trim({column.text})", "licence": f"nullif({column.text}, '?')"}.get(name, column.text)
    else:
        sql = f"TRY_CAST({column.number} AS {_KINDS[kind]})"
    return f"CAST({sql} AS {_KINDS[kind]})"


_KINDS = {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.float32(): "FLOAT"}


# What is taken


def _mark_first(database: duckdb.DuckDBPyConnection, config: FilterConfig, passed: Path) -> int:
    """Makes the table `firsts` of the places at which each row stands first. Returns how many there are."""
    same = {"url": "md5_number(url)", "url_text": "md5_number(url), md5_number(coalesce(text, ''))"}[
        config.deduplicate_by
    ]
    place = "min(file_row_number)"
    if config.take == "sample":  # of the rows alone, so that it is the same in whatever order the files are read
        place = "arg_min(file_row_number, (md5(coalesce(text, '')), file_row_number))"
    database.sql(
        f"CREATE TABLE firsts AS SELECT {place} AS place "
        f"FROM read_parquet({sql_string(str(passed))}, file_row_number = true) GROUP BY {same}"
    )
    return int(database.sql("SELECT count(*) FROM firsts").fetchall()[0][0])


def _taken(
    database: duckdb.DuckDBPyConnection, config: FilterConfig, indexes: list[Index], passed: Path
) -> Iterator[pa.Table]:
    """The chosen rows in their order, `part_rows` at a time; where there are none, one table of none."""
    names = _known(indexes)
    batches = (
        _first(database, config, names, passed) if config.take == "first" else _sorted(database, config, names, passed)
    )
    waiting = pa.schema([pq.read_schema(passed).field(name) for name in names]).empty_table()
    given = 0
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while len(waiting) >= config.part_rows:
            yield waiting.slice(0, config.part_rows)
            waiting, given = waiting.slice(config.part_rows), given + 1
    if not given or len(waiting):
        yield waiting


def _first(
    database: duckdb.DuckDBPyConnection, config: FilterConfig, names: list[str], passed: Path
) -> Iterator[pa.RecordBatch]:
    """Those that stand first, as they lie in the file, so that nothing need be sorted."""
    limit = f"LIMIT {config.limit}" if config.limit else ""
    places = database.sql(f"SELECT place FROM firsts ORDER BY place {limit}").fetchnumpy()["place"]
    begin = 0
    for batch in pq.ParquetFile(passed, pre_buffer=False).iter_batches(_GROUP_ROWS, columns=names, use_threads=False):
        here = slice(*np.searchsorted(places, (begin, begin + len(batch))))
        yield batch.take(pa.array(places[here] - begin))
        begin += len(batch)


def _sorted(
    database: duckdb.DuckDBPyConnection, config: FilterConfig, names: list[str], passed: Path
) -> pa.RecordBatchReader:
    order = {
        "best": "aesthetic DESC NULLS LAST, file_row_number",
        # of the row alone, so that it is the same however the rows are spread over files
        "sample": f"md5('{config.seed} ' || url || coalesce(text, '')), url, text"
        if config.deduplicate_by == "url_text"
        else f"md5('{config.seed} ' || url), url",
    }[config.take]
    return database.sql(
        f"SELECT {', '.join(names)} FROM read_parquet({sql_string(str(passed))}, file_row_number = true) "
        f"WHERE file_row_number IN (SELECT place FROM firsts) "
        f"ORDER BY {order} {f'LIMIT {config.limit}' if config.limit else ''}"
    ).to_arrow_reader(_BATCH_ROWS)
