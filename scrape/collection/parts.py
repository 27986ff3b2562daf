"""The loop that all stages of parts share: find the stale parts, make them one by one, commit each atomically."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.files import remove_leftovers
from dreamloom.base.free_space import require_free_space
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.schema import Table

_log = logging.getLogger(__name__)


def split(rows: Sequence[Any], part_rows: int = PART_ROWS) -> dict[str, Sequence[Any]]:
    """Splits rows into named parts, in order. No rows give one empty part, so that the table exists."""
    starts = range(0, max(1, len(rows)), part_rows)
    return {f"{start // part_rows:05d}": rows[start : start + part_rows] for start in starts}


def stale_parts(collection: Collection, table: Table, recipes: Mapping[str, str]) -> list[str]:
    """Returns the parts that are missing or were made by another recipe, sorted."""
    return sorted(part for part, recipe in recipes.items() if collection.recipe(table, part) != recipe)


RunPart = Callable[[str, Callable[[], Summary]], Summary]
"""Makes a part, given its name, by calling the function."""
part_runner: ContextVar[RunPart] = ContextVar("part_runner", default=lambda _, make: make())
"""Set by whoever shows the parts one by one, as a dashboard does. Calls the function, and returns what it returns."""

MakePart = Callable[[str, Progress], tuple[pa.Table | Sequence[Mapping[str, Any]], Summary]]
"""Makes one part: its rows, and its summary (rows, kept, dropped, bytes_written; the seconds are filled in)."""


def make_parts(
    collection: Collection,
    table: Table,
    config: StageConfig,
    recipes: Mapping[str, str],
    make: MakePart,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
    models: Mapping[str, str] | None = None,
    by_content: Callable[[str], str | None] = lambda _: None,
) -> Summary:
    """Makes every stale part and commits it.

    Args:
        collection: the collection to write to.
        table: the table to make.
        config: config of the stage, stored with each part.
        recipes: part → recipe, for all parts that the table should have.
        make: called once per stale part.
        progress: receives the progress over all stale parts.
        parts: only these, for a scheduler that assigns parts one by one; None: all, and parts without a recipe are
            removed.
        models: fingerprints of the models that `make` uses, by role, stored with each part.
        by_content: returns the recipe of a part that knows its files by their bytes, stored with it; None: there is
            none.

    Returns:
        The summary of the requested parts, including those that existed before.

    Raises:
        UserError: another process works on this collection, or the disk is nearly full.
        ExceptionGroup: some parts failed; the others are done.
    """
    largest = 0  # bytes of a part so far, which the next one may need

    def make_and_commit(part: str, progress: Progress) -> Summary:
        nonlocal largest
        begun = time.monotonic()
        require_free_space(collection.root, largest)
        remove_leftovers(collection.image_folder(part))
        rows, summary = make(part, progress)
        largest = max(largest, summary.bytes_written)
        summary.seconds, summary.parts_done = time.monotonic() - begun, 1
        collection.write(
            table,
            part,
            rows,
            recipe=recipes[part],
            config=config,
            summary=summary,
            models=models,
            content_recipe=by_content(part),
        )
        _log.info("%s/%s/%s: %s", collection.name, table, part, summary)
        return summary

    requested = sorted(recipes) if parts is None else list(parts)
    errors: list[Exception] = []
    with collection.lock():
        if parts is None:
            collection.remove_parts(table, keep=recipes)
        stale = set(stale_parts(collection, table, recipes)) & set(requested)
        remove_leftovers(collection.root / table)
        for number, part in enumerate(sorted(stale)):
            try:
                part_runner.get()(part, partial(make_and_commit, part, _part_progress(progress, number, len(stale))))
            except UserError:
                raise
            except (OSError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
                error.add_note(f"in part {part} of {collection.root / table}")
                errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(stale)} parts of {collection.root / table} failed", errors)
    return _total(collection, table, requested, stale)


def _total(collection: Collection, table: Table, parts: Sequence[str], new: set[str]) -> Summary:
    """Adds up the summaries of parts, of which `new` were made now."""
    summaries = ((part, collection.summary(table, part)) for part in parts)
    return sum((summary if part in new else summary.as_existing() for part, summary in summaries), start=Summary())


def _part_progress(progress: Progress, number: int, parts: int) -> Progress:
    """Returns the progress of one part, as a share of all parts that are made."""
    if parts == 1:
        return progress

    def report(done: int, total: int | None, note: str = "") -> None:
        total_of_all = None if total is None else total * parts
        progress(done + (total or 0) * number, total_of_all, f"part {number + 1} of {parts} {note}".rstrip())

    return report
