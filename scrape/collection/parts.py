"""What all stages of parts share: find the stale parts, make them one by one, commit each atomically."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dreamloom.base.files.atomic import remove_leftovers
from dreamloom.base.files.free_space import require_free_space
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.schema import Table
from dreamloom.scrape.collection.turns import Order, Turns

_log = logging.getLogger(__name__)


def split(rows: Sequence[Any], part_rows: int = PART_ROWS) -> dict[str, Sequence[Any]]:
    """Splits rows into named parts, in order. No rows give one empty part, so that the table exists."""
    starts = range(0, max(1, len(rows)), part_rows)
    return {f"{start // part_rows:05d}": rows[start : start + part_rows] for start in starts}


def stale_parts(collection: Collection, table: Table, recipes: Mapping[str, str]) -> list[str]:
    """Returns the parts that are missing or were made by another recipe, sorted."""
    return sorted(part for part, recipe in recipes.items() if collection.recipe(table, part) != recipe)


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
    order: Order | None = None,
) -> Summary:
    """Makes every stale part and commits it, unless another process does: any number may do this side by side.

    Returns when all parts are made, by whomever.

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
        order: set where a part depends on those before it; None: they are made in any order.

    Returns:
        The summary of the requested parts, including those that existed before, or that other processes made.

    Raises:
        UserError: another process works on something else of this collection, or the disk is nearly full.
        ExceptionGroup: some parts failed; the others are done.
    """
    largest = 0  # bytes of a part so far, which the next one may need

    def make_and_commit(part: str, progress: Progress) -> Summary:
        nonlocal largest
        begun = time.monotonic()
        require_free_space(collection.root, largest)
        rows, summary = make(part, progress)
        largest = max(largest, summary.bytes_written)
        summary.seconds, summary.parts_done = time.monotonic() - begun, 1
        worker.require_alive(look=True)
        collection.write(
            table,
            part,
            rows,
            recipe=f"{recipes[part]} without unread files" if summary.unread else recipes[part],
            config=config,
            summary=summary,
            models=models,
            content_recipe=None if summary.unread else by_content(part),
        )
        _log.info("%s/%s/%s: %s", collection.name, table, part, summary)
        return summary

    requested = sorted(recipes) if parts is None else list(parts)
    with collection.share(table, {part: recipe for part, recipe in recipes.items() if part in requested}) as worker:
        if parts is None:
            collection.remove_parts(table, keep=recipes)
        stale = sorted(set(stale_parts(collection, table, recipes)) & set(requested))
        remove_leftovers(collection.root / table, worker.writers)
        worker.remove_leases_of_dead()
        turns = Turns(worker, collection, table, recipes, make_and_commit, progress, order, list(stale))
        turns.take()
    if turns.errors:
        count = f"{len(turns.errors)} of {len(stale)}"
        raise ExceptionGroup(f"{count} parts of {collection.where}/{table} failed", turns.errors)
    return _total(collection, table, requested, turns.made)


def _total(collection: Collection, table: Table, parts: Sequence[str], new: set[str]) -> Summary:
    """Adds up the summaries of parts, of which `new` were made now."""
    summaries = ((part, collection.summary(table, part)) for part in parts)
    return sum((summary if part in new else summary.as_existing() for part, summary in summaries), start=Summary())
