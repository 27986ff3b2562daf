"""Finds rows that were made before by the same recipe: in a collection, in those beside it, and in its library.

A row's recipe may have two halves, with a slash between them: what the first stands for is of use alone, too. Rows are
found by recipe, not by key, so work is taken over whatever file, source or name an image came with.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.library import known_library
from dreamloom.scrape.collection.schema import SCHEMAS, Table


def first_half(recipe: str) -> str:
    """Returns the first half of a row's recipe."""
    return recipe.partition("/")[0]


def find_known_rows(
    collection: Collection, table: Table, recipes: Iterable[str], columns: Sequence[str] | None = None
) -> pa.Table:
    """Returns the rows of a table that have one of these recipes, or the same first half, unless it is empty.

    Those of the collection itself come last. What can't be read is left out: it would only have saved work.

    Args:
        collection: the rows are looked for in all its parts, in those of the collections in its folder's folder, and
            of the collections that it was taken from.
        table: a table with the column recipe.
        recipes: those that are wanted.
        columns: names of the columns, with recipe; None: all.
    """
    import pyarrow.compute as pc

    wanted = set(recipes)
    whole = pa.array(sorted(wanted), pa.string())
    halves = pa.array(sorted(set(map(first_half, wanted)) - {""}), pa.string())
    names = columns or SCHEMAS[table].names
    tables = [pa.schema([SCHEMAS[table].field(name) for name in names]).empty_table()]
    for place, part in _parts(collection, table) if wanted else ():
        try:
            own = place.read(table, part, ["recipe"])["recipe"].combine_chunks()
            of_half = pc.struct_field(pc.extract_regex(own, "^(?P<half>[^/]+)/"), "half")
            found = pc.fill_null(pc.or_(pc.is_in(own, whole), pc.is_in(of_half, halves)), False)
            if pc.any(found).as_py():
                tables.append(place.read(table, part, columns).filter(found))
        except UserError:
            continue
    return pa.concat_tables(tables)


def _parts(collection: Collection, table: Table) -> Iterator[tuple[Collection, str]]:
    beside = sorted(path.parent for path in collection.root.parent.glob(f"*/{table}"))
    others = [Collection(root) for root in beside if root != collection.root]
    for place in [*_libraries(collection), *others, collection]:
        for part in place.parts(table):
            yield place, part


def _libraries(collection: Collection) -> list[Collection]:
    """Returns the collections that a collection was taken from (dreamloom.scrape.datasets.collection)."""
    configs = (collection.config(Table.RECORDS, part) for part in collection.parts(Table.RECORDS))
    paths = sorted({str(config["path"]) for config in configs if "path" in config})
    return [library for path in paths if (library := known_library(Path(path)))]  # no other kind takes collections
