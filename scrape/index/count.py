"""Counts what each rule on numbers drops, beside other work."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import duckdb

Count = Callable[[list[str]], list[Callable[[], dict[int, int]]]]
"""Starts queries of two columns; returns what waits for that which each finds."""


@contextmanager
def counting(database: duckdb.DuckDBPyConnection) -> Iterator[Count]:
    """Yields a function that runs queries beside what the connection does meanwhile."""

    def run(query: str) -> dict[int, int]:
        return dict(cursor.sql(query).fetchall())

    with database.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        try:
            yield lambda queries: [pool.submit(run, query).result for query in queries]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            cursor.interrupt()
            raise


def failing_numbers(relation: str, predicates: dict[str, str]) -> str:
    """Returns the query that counts the rows that pass the first predicate, by the next that they fail but the last.

    The last one's column is not read, as what it drops follows from the rows that pass all.
    """
    first, *others = [*predicates.values()][:-1] or ["true"]
    return f"SELECT {first_failed(others)}, count(*) FROM {relation} WHERE {first} GROUP BY 1"


def dropped_by_numbers(reasons: list[str], rows: int, counts: dict[int, int], passed: int) -> dict[str, int]:
    """Returns reason → rows that its predicate is the first to drop.

    Args:
        reasons: those of the predicates, in their order.
        rows: rows of the index.
        counts: what `failing_numbers` counted.
        passed: rows that pass all predicates.
    """
    if not reasons:
        return {}
    *others, last = reasons
    dropped = {reason: counts.get(number, 0) for number, reason in enumerate(others[1:], start=1)}
    first = {others[0]: rows - sum(counts.values())} if others else {}
    return {**first, **dropped, last: counts.get(0, 0) - passed}


def first_failed(predicates: Iterable[str]) -> str:
    """Returns SQL of the number of the first predicate that is not true, counted from 1; 0 where all are true."""
    cases = "".join(f" WHEN ({sql}) IS NOT TRUE THEN {number}" for number, sql in enumerate(predicates, start=1))
    return f"CASE{cases} ELSE 0 END::USMALLINT" if cases else "0"
