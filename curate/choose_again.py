"""Chooses again where few images changed: only what changed, and what it has to do with, is decided.

Parts of which no row is chosen otherwise stay as they are, under the recipes that they have. That they are what choose
would make now is remembered in the user's cache.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.files.remembered import recalled, remembered
from dreamloom.base.stage import Summary, recipe
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.deciding import MakePart, PartName, choices_table, decide, read_images
from dreamloom.curate.rules.rule import Images, Part
from dreamloom.curate.seen_images import VERSION, Seen, find_affected, place_of, see, settings_of, stamps_of
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import Table

_Row = tuple[str, str | None]
"""A choice, and its detail."""


def choose_again(
    ordered: Sequence[Source], config: ChooseConfig, before: Seen
) -> tuple[dict[PartName, MakePart], Seen] | None:
    """Decides about the images that may be chosen otherwise than when choose last ran.

    Args:
        ordered: the sources.
        config: the config of choose.
        before: what it saw then.

    Returns:
        What makes each part that changes, and what was seen now; None: all is to be chosen anew.
    """
    stamps = stamps_of(ordered)
    earlier = {part.name: part.stamps for part in before.parts}
    changed = {name for name in stamps if earlier.get(name) != stamps[name]}
    settings = settings_of(ordered, config)
    if before.settings != settings or 2 * len(changed) > len(stamps):
        return None
    if not earlier.keys() <= stamps.keys():
        return None
    if not changed:
        return {}, before
    images = read_images(ordered, changed)
    now = see(images, stamps, settings, before)
    affected = find_affected(before, now, changed, config)
    known = _read_choices(ordered, {part.name for part in before.parts} & changed)
    if affected is None or known is None:
        return None
    own = _decide(ordered, config, now, affected)
    tables: dict[PartName, MakePart] = {}
    for part in images.parts:
        name = part.source, part.name
        keys = images.table["key"].slice(part.first, part.rows)
        of_part = own.get(name, {})
        rows = [of_part.get(key) or known[part.source, key] for key in keys.to_pylist()]
        tables[name] = partial(_make_part, keys, rows)
    for name in own.keys() - changed:
        if (was := _read_choices(ordered, [name])) is None:
            return None
        rows = [own[name].get(key, row) for (_, key), row in was.items()]
        if rows != list(was.values()):
            tables[name] = partial(_make_part, pa.chunked_array([[key for _, key in was]], pa.string()), rows)
    return tables, now


def _decide(
    ordered: Sequence[Source], config: ChooseConfig, now: Seen, affected: NDArray[np.int64]
) -> dict[PartName, dict[str, _Row]]:
    """Decides about some rows: part → key → choice."""
    wanted = {part.name: affected[(affected >= part.first) & (affected < part.first + part.rows)] for part in now.parts}
    wanted = {name: rows for name, rows in wanted.items() if len(rows)}
    if not wanted:
        return {}
    first_of = {part.name: part.first for part in now.parts}
    images = read_images(ordered, wanted)
    taken, parts, first = list[NDArray[np.int64]](), list[Part](), 0
    for part in images.parts:
        name = part.source, part.name
        taken.append(wanted[name] - first_of[name] + part.first)
        parts.append(Part(*name, first, len(taken[-1])))
        first += len(taken[-1])
    some = Images(images.table.take(pa.array(np.concatenate(taken))), ordered, parts)
    return {name: _by_key(make()[0]) for name, make in decide(some, config).items()}


def _by_key(choices: pa.Table) -> dict[str, _Row]:
    keys, *columns = (choices[name].to_pylist() for name in ("key", "choice", "detail"))
    return dict(zip(keys, zip(*columns, strict=True), strict=True))


def _read_choices(ordered: Sequence[Source], names: Collection[PartName]) -> dict[tuple[int, str], _Row] | None:
    """Returns what was chosen of the images of some parts, by source and key; None: a key is there twice."""
    found: dict[tuple[int, str], _Row] = {}
    count = 0
    for number, part in names:
        choices = _by_key(ordered[number].collection.read(Table.CHOICES, part))
        found |= {(number, key): row for key, row in choices.items()}
        count += len(choices)
    return found if len(found) == count else None


def _make_part(keys: pa.ChunkedArray, rows: Sequence[_Row]) -> tuple[pa.Table, Summary]:
    return choices_table(keys, [choice for choice, _ in rows], [detail for _, detail in rows])


# Whether the parts that stay are what choose would make


def is_noted(sources: Sequence[Source], recipes: Iterable[str]) -> bool:
    """Tells whether the choices that are there were found to be what these recipes make."""
    place = place_of(sources)
    return place is not None and recalled(_note(place, recipes)) is True


def note(sources: Sequence[Source], recipes: Iterable[str]) -> None:
    """Remembers that the choices that are there are what these recipes make."""
    if (place := place_of(sources)) is not None:
        remembered(_note(place, recipes), lambda: True)


def _note(place: str, recipes: Iterable[str]) -> str:
    return recipe("choices", VERSION, {}, [place, *recipes])
