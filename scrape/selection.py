"""Which rows of an index are taken, and what became of the others: the predicates as SQL, and DuckDB's reading by them.

DuckDB reads the index twice: once the numbers alone, to count what each predicate on them drops, and once whole, to put
what passes into a temporary parquet file, in the order of the index. That file is all that the rest works on (words and
domains that dropped a row, URLs that stand twice, what to take), so memory stays flat however long the index is.
"""

import glob
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from base.errors import UserError
from base.files import TEMPORARY
from base.progress import Progress
from base.stage import Summary
from scrape.collection import SCHEMAS, Table
from scrape.columns import ALIASES, Column, Index
from scrape.words import Words, words_condition

if TYPE_CHECKING:
    from scrape.laion import FilterConfig

_COLUMNS = [name for name in SCHEMAS[Table.CANDIDATES].names if name != "key"]
_MEMORY = "2GB"
"""What DuckDB may hold; beyond that it writes to disk. A row group has to fit, and some indexes have but one."""


@contextmanager
def selection(
    indexes: list[Index], config: "FilterConfig", folder: Path, progress: Progress
) -> Iterator[tuple[Summary, Iterator[pa.Table]]]:
    """Reads the index, and gives the funnel and the chosen rows, in parts, as candidates without their key.

    Args:
        folder: where what must be kept meanwhile lies.
    """
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-", dir=folder) as temporary,
        duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": temporary}) as database,
    ):
        passed = Path(temporary) / "passed.parquet"
        funnel = Summary(rows=sum(index.rows for index in indexes))
        progress(0, funnel.rows)
        try:
            funnel.dropped = _scan(database, config, indexes, passed)
        except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
            raise UserError(f"The index can't be read: {str(error).splitlines()[0]}") from error
        found = funnel.rows - sum(funnel.dropped.values())
        distinct = _mark_first(database, passed)
        funnel.kept = min(distinct, config.limit or distinct)
        dropped = {**funnel.dropped, "duplicate_url": found - distinct, "limit": distinct - funnel.kept}
        funnel.dropped = {reason: count for reason, count in dropped.items() if count}
        funnel.seconds = time.monotonic() - begun
        progress(funnel.rows, funnel.rows, f"{funnel.kept} kept")
        yield funnel, _taken(database, config, passed)


# The predicates: reason → SQL that is true where a row passes, in the order of the funnel


def _on_numbers(config: "FilterConfig", index: Index) -> dict[str, str]:
    predicates: dict[str, str] = {}
    if config.take == "best" and "aesthetic" not in index.columns:
        raise UserError(
            f"{index.files[0]} has no aesthetic scores, by which `take: best` orders; take first or sample."
        )
    for side in _asked(config, index, "min_side", "width", "height"):
        above = side.compared(">=", config.min_side or 0)
        predicates["size"] = f"{predicates['size']} AND {above}" if "size" in predicates else above
    if sides := _asked(config, index, "max_aspect", "width", "height"):
        w, h = (side.number for side in sides)
        most = repr(config.max_aspect)
        predicates["aspect"] = f"{w} > 0 AND {h} > 0 AND {w} <= {most} * {h} AND {h} <= {most} * {w}"
    for field, operator in (
        ("min_aesthetic", ">="),
        ("min_similarity", ">="),
        ("max_punsafe", "<"),
        ("max_pwatermark", "<"),
    ):
        reason = field[len("min_") :]
        for column in _asked(config, index, field, reason):
            predicates[reason] = column.compared(operator, getattr(config, field))
    return predicates


def _on_text(config: "FilterConfig", index: Index) -> dict[str, str]:
    url = index.columns["url"].text
    predicates = {"no_url": f"trim({url}) <> ''"}
    for language in _asked(config, index, "languages", "language"):
        predicates["language"] = (
            f"lower({language.text}) IN ({', '.join(map(_quoted, map(str.lower, config.languages)))})"
        )
    if config.exclude_domains:
        domains = "|".join(re.escape(domain.strip(".")) for domain in config.exclude_domains)
        host = rf"(?i)^\s*[a-z]+:/*(?:[^/?#]*@)?(?:[^/?#:@]*\.)?(?:{domains})\.?(?:[:/?#\s]|$)"
        predicates["domain"] = f"NOT regexp_matches({url}, {_quoted(host)})"
    for text in _asked(config, index, "words", "text"):
        predicates["words"] = words_condition(config.words, text.text) or "true"
    return predicates


def _asked(config: "FilterConfig", index: Index, field: str, *names: str) -> list[Column]:
    """The columns that a field of the config asks of, or none where it asks nothing, or may do without them."""
    value, default = getattr(config, field), type(config).model_fields[field].default
    if value is None or value == [] or value == Words():
        return []
    missing = [name for name in names if name not in index.columns]
    if missing and value != default:
        raise UserError(
            f"{index.files[0]} has no column for {missing[0]} (such as {ALIASES[missing[0]][0]}), which `{field}` "
            f"needs; leave `{field}` out, or take an index that has it."
        )
    return [] if missing else [index.columns[name] for name in names]


# The reading


def _scan(
    database: duckdb.DuckDBPyConnection, config: "FilterConfig", indexes: list[Index], passed: Path
) -> dict[str, int]:
    """Writes the rows that pass all predicates on numbers; of a row that then fails one on text, the reason alone.

    Returns:
        Reason → rows dropped, in the order of the funnel.
    """
    dropped: Counter[str] = Counter()
    reasons: dict[str, None] = {}
    selects = []
    for index in indexes:
        source, numbers = _source(index), _on_numbers(config, index)
        if numbers:
            query = f"SELECT {_first_failed(numbers)}, count(*) FROM {source} GROUP BY 1"
            dropped.update({reason: count for reason, count in database.sql(query).fetchall() if reason})
        texts = _on_text(config, index)
        reasons |= dict.fromkeys([*numbers, *texts])
        where = " AND ".join(f"({predicate})" for predicate in numbers.values()) or "true"
        selects.append(f"SELECT {_candidate(index)}, {_first_failed(texts)} AS reason FROM {source} WHERE {where}")
    columns = ", ".join(f"CASE WHEN reason IS NULL THEN {name} END AS {name}" for name in _COLUMNS)
    select = f"SELECT reason, {columns} FROM ({' UNION ALL '.join(selects)})"
    database.sql(f"COPY ({select}) TO {_quoted(str(passed))} (FORMAT parquet)")
    query = f"SELECT reason, count(*) FROM {_quoted(str(passed))} WHERE reason IS NOT NULL GROUP BY 1"
    dropped.update(dict(database.sql(query).fetchall()))
    return {reason: dropped[reason] for reason in reasons}


def _source(index: Index) -> str:
    files = ", ".join(_quoted(glob.escape(str(file))) for file in index.files)
    return f"read_parquet([{files}], hive_partitioning = false, binary_as_string = true)"


def _first_failed(predicates: dict[str, str]) -> str:
    cases = " ".join(f"WHEN ({sql}) IS NOT TRUE THEN {_quoted(reason)}" for reason, sql in predicates.items())
    return f"CASE {cases} END"


def _candidate(index: Index) -> str:
    """The index's columns as a candidate's, null where it has none."""

    def sql(name: str) -> str:
        column = index.columns.get(name)
        if column is None:
            return "NULL"
        if name in ("width", "height"):
            return f"TRY_CAST({column.number} AS INTEGER)"
        if pa.types.is_floating(SCHEMAS[Table.CANDIDATES].field(name).type):
            return f"TRY_CAST({column.number} AS FLOAT)"
        return {"url": f"trim({column.text})", "licence": f"nullif({column.text}, '?')"}.get(name, column.text)

    kinds = {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.float32(): "FLOAT"}
    schema = SCHEMAS[Table.CANDIDATES]
    return ", ".join(f"CAST({sql(name)} AS {kinds[schema.field(name).type]}) AS {name}" for name in _COLUMNS)


# What is taken


def _mark_first(database: duckdb.DuckDBPyConnection, passed: Path) -> int:
    """Makes the table `firsts` of the places at which each URL stands first. Returns how many there are."""
    database.sql(
        f"CREATE TABLE firsts AS SELECT min(file_row_number) AS place "
        f"FROM read_parquet({_quoted(str(passed))}, file_row_number = true) WHERE reason IS NULL GROUP BY url"
    )
    return int(database.sql("SELECT count(*) FROM firsts").fetchall()[0][0])


def _taken(database: duckdb.DuckDBPyConnection, config: "FilterConfig", passed: Path) -> Iterator[pa.Table]:
    """The chosen rows in their order, `part_rows` at a time; where there are none, one table of none."""
    order = {
        "first": "file_row_number",
        "best": "aesthetic DESC NULLS LAST, file_row_number",
        # of the URL alone, so that it is the same however the rows are spread over files
        "sample": f"md5('{config.seed} ' || url), url",
    }[config.take]
    rows = database.sql(
        f"SELECT {', '.join(_COLUMNS)} FROM read_parquet({_quoted(str(passed))}, file_row_number = true) "
        f"WHERE file_row_number IN (SELECT place FROM firsts) "
        f"ORDER BY {order} {f'LIMIT {config.limit}' if config.limit else ''}"
    )
    waiting: list[pa.Table] = []
    given = 0
    for batch in rows.to_arrow_reader(config.part_rows):
        waiting = [pa.concat_tables([*waiting, pa.Table.from_batches([batch])])]
        while len(waiting[0]) >= config.part_rows:
            yield waiting[0].slice(0, config.part_rows)
            waiting, given = [waiting[0].slice(config.part_rows)], given + 1
    if not given or len(waiting[0]):
        yield waiting[0] if waiting else rows.to_arrow_table()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
