"""The loop that every stage of parts shares: which parts are stale, make them one by one, commit each whole."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.files import remove_leftovers
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.schema import Table


def split(rows: Sequence[Any], part_rows: int = PART_ROWS) -> dict[str, Sequence[Any]]:
    """Cuts a plan's rows into named parts, in order. No rows give one empty part, so that the table says it is done."""
    return {f"{i // part_rows:05d}": rows[i : i + part_rows] for i in range(0, max(1, len(rows)), part_rows)}


def stale_parts(collection: Collection, table: Table, recipes: Mapping[str, str]) -> list[str]:
    """The parts that are missing or were made by another recipe, sorted."""
    return sorted(part for part, recipe in recipes.items() if collection.recipe(table, part) != recipe)


Work = Callable[[str, Progress], tuple[pa.Table | Sequence[Mapping[str, Any]], Summary]]
"""Makes one part: its rows, and its summary (rows, kept, dropped, bytes_written; the seconds are filled in)."""


def make_parts(
    collection: Collection,
    table: Table,
    config: StageConfig,
    recipes: Mapping[str, str],
    work: Work,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
    models: Mapping[str, str] | None = None,
) -> Summary:
    """Runs `work` for every stale part and commits what it gives: the loop that every stage of parts shares.

    Args:
        recipes: part → recipe, for all parts the table shall have.
        parts: only these (for a scheduler that hands out parts one by one); None: all.
        models: fingerprints of the models that `work` uses, by role, to be told with each part.

    Returns:
        The summary of the parts asked for, also of those that were there before.

    Raises:
        UserError: another process works on this collection.
        ExceptionGroup: some parts failed; the others are done.
    """
    asked = sorted(recipes) if parts is None else list(parts)
    failed: list[Exception] = []
    with collection.lock():
        if parts is None:
            collection.remove_parts(table, keep=recipes)
        stale = set(stale_parts(collection, table, recipes)) & set(asked)
        remove_leftovers(collection.root / table)
        for number, part in enumerate(sorted(stale)):
            begun = time.monotonic()
            remove_leftovers(collection.image_folder(part))
            try:
                rows, summary = work(part, _within(progress, number, len(stale)))
            except UserError:
                raise
            except (OSError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
                error.add_note(f"in part {part} of {collection.root / table}")
                failed.append(error)
                continue
            summary.seconds, summary.parts_done = time.monotonic() - begun, 1
            collection.write(table, part, rows, recipe=recipes[part], config=config, summary=summary, models=models)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(stale)} parts of {collection.root / table} failed", failed)
    total = Summary()
    for part in asked:
        made = collection.summary(table, part)
        if part not in stale:
            made.parts_done, made.parts_before, made.seconds = 0, 1, 0.0
        total += made
    return total


def _within(progress: Progress, number: int, parts: int) -> Progress:
    """The progress of one part, as a share of all parts that are to be made."""
    if parts == 1:
        return progress

    def of_part(done: int, total: int | None, note: str = "") -> None:
        whole = None if total is None else total * parts
        progress(done + (total or 0) * number, whole, f"part {number + 1} of {parts} {note}".rstrip())

    return of_part
