"""Turns rows of a LAION-style index, in any of its column spellings, into the candidates of a collection."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from dreamloom.base.files.atomic import remove_leftovers, temporary_name
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.scrape.collection import Collection, Table, key_of
from dreamloom.scrape.index.columns import read_indexes
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.files import find_index_files, fingerprints
from dreamloom.scrape.index.lists import as_parquet

_VERSION = 4


def filter_laion(collection: Collection, config: FilterConfig, progress: Progress = silent) -> Summary:
    """Writes the candidates of a collection, unless they were made by this config from this index already.

    Part 00000 is committed last and carries the whole funnel: if it exists, all other parts do.

    Returns:
        The funnel: rows of the index, kept, and dropped by the first predicate that a row fails.

    Raises:
        UserError: there is no file, no parquet, no column of URLs, no column for a limit that is set, or another
            process works on this collection.
    """
    find_index_files(config.index)  # before a collection is made
    with collection.lock(), ThreadPoolExecutor(1) as pool:
        remove_leftovers(collection.root)
        remove_leftovers(collection.root / Table.CANDIDATES)
        current_recipe = pool.submit(filter_recipe, config)  # reads the whole index, while DuckDB does
        if _has_recipe(collection, current_recipe.result):
            return collection.summary(Table.CANDIDATES).as_existing(len(collection.parts(Table.CANDIDATES)))
        with _selection(config, collection.root, progress) as (funnel, parts):
            return _write_parts(collection, config, current_recipe.result(), funnel, parts)


def is_current(collection: Collection, config: FilterConfig) -> bool:
    """Tells whether the candidates were made by this config from the index as it is now.

    Raises:
        UserError: a pattern of `index` matches no file.
    """
    find_index_files(config.index)
    return _has_recipe(collection, lambda: filter_recipe(config))


def _has_recipe(collection: Collection, current_recipe: Callable[[], str]) -> bool:
    """Whether the candidates have a recipe, which is asked for only if there are some."""
    stored = collection.recipe(Table.CANDIDATES, "00000")
    return stored is not None and stored == current_recipe()


def filter_recipe(config: FilterConfig) -> str:
    """Returns the recipe of the candidates: the config, and the content of the index.

    Raises:
        UserError: a pattern of `index` matches no file.
    """
    return recipe("filter", _VERSION, config, upstream=fingerprints(find_index_files(config.index)))


def explain(config: FilterConfig, progress: Progress = silent) -> Summary:
    """Returns the funnel of `filter_laion` without writing candidates.

    Raises:
        UserError: as `filter_laion`.
    """
    with tempfile.TemporaryDirectory() as folder, _selection(config, Path(folder), progress) as (funnel, _):
        return funnel()


@contextmanager
def _selection(
    config: FilterConfig, folder: Path, progress: Progress
) -> Iterator[tuple[Callable[[], Summary], Iterator[pa.Table]]]:
    from dreamloom.scrape.index.scan import select_rows  # DuckDB, which `--help` does without

    with tempfile.TemporaryDirectory(prefix=temporary_name(), dir=folder) as temporary:
        found = find_index_files(config.index)
        files = [as_parquet(file, Path(temporary), config.text_column) for file in found]
        indexes = read_indexes(files, config.url_column, config.text_column, config.aesthetic_scale)
        with select_rows(indexes, config, folder, progress) as selection:
            yield selection


def _write_parts(
    collection: Collection,
    config: FilterConfig,
    current_recipe: str,
    funnel: Callable[[], Summary],
    parts: Iterator[pa.Table],
) -> Summary:
    """Commits the parts, part 00000 last of all. Returns the funnel."""

    def write(number: int, rows: pa.Table, summary: Summary) -> None:
        keys = pa.array(_keys(config, rows), pa.string())
        content = rows.append_column("key", keys)
        part = f"{number:05d}"
        collection.write(Table.CANDIDATES, part, content, recipe=current_recipe, config=config, summary=summary)

    old_parts = collection.parts(Table.CANDIDATES)
    collection.remove_parts(Table.CANDIDATES, keep=old_parts[1:])  # 00000 before the others: it vouches for them
    collection.remove_parts(Table.CANDIDATES, keep=[])
    first = next(parts)
    number = 0
    for number, rows in enumerate(parts, start=1):
        write(number, rows, Summary(rows=len(rows), kept=len(rows)))
    whole = funnel()
    in_other_parts = whole.kept - len(first)
    write(0, first, replace(whole, rows=whole.rows - in_other_parts, kept=len(first), parts_done=1))
    return replace(whole, parts_done=number + 1)


def _keys(config: FilterConfig, rows: pa.Table) -> list[str]:
    urls = rows.column("url").to_pylist()
    if config.deduplicate_by == "url":
        return [key_of("url", url) for url in urls]
    return [key_of("url", url, text or "") for url, text in zip(urls, rows.column("text").to_pylist(), strict=True)]
