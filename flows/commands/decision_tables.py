"""`dreamloom decisions`: what was decided of single images, as a list and as tables."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from cyclopts import App

from dreamloom.base.errors import UserError
from dreamloom.base.stage import PathKind
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import read_table, write_table
from dreamloom.base.text import brief
from dreamloom.curate.decide import carry_out, check_value
from dreamloom.curate.find import ImageIndex, find_images
from dreamloom.flows.commands.decisions import SHOWN, Target, find_target
from dreamloom.flows.project.config_errors import suggestion
from dreamloom.flows.report.contents import evenly_spaced
from dreamloom.flows.terminal.help_pages import HelpPage
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.terminal import print_table, rows_table
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.collection.decisions import HAND, Decision, What, next_time

_COLUMNS = ("source", "key", "file", "what", "value", "reason", "who", "time")
_SUFFIXES = (".csv", ".jsonl")

app = App(name="decisions", help="List, export or import what was decided of single images.", help_formatter=HelpPage())


@app.command(name="list", help_formatter=HelpPage())
def list_(project: Annotated[Path, PathKind.ADDRESS], *, all: bool = False, as_json: AsJson = False) -> None:
    """Show the decisions that count.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    all
        Show all of them, not 20.
    as_json
        Print all of them as JSON.
    """
    rows = list(_rows(find_target(project), counting=True))
    if as_json:
        print_json(rows)
        return
    shown = rows if all else evenly_spaced(rows, SHOWN)
    if rows:
        columns = ("source", "file", "what", "value", "reason", "who")
        print_table(
            rows_table(f"{len(shown):,} of {len(rows):,} decisions", [{c: r[c] for c in columns} for r in shown])
        )
    else:
        print("nothing is decided yet")


@app.command(name="export", help_formatter=HelpPage())
def export_(project: Annotated[Path, PathKind.ADDRESS], table: Path) -> None:
    """Write the decisions into a table, such as for another project on the same images.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    table
        File to make: .csv or .jsonl.
    """
    _check_suffix(table)
    if table.exists():
        raise UserError(f"{table} exists, and stays as it is; name another file.")
    rows = [row for row in _rows(find_target(project), counting=False) if row["what"] != What.IMAGE]
    write_table(table, pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in _COLUMNS])))
    print(f"{len(rows):,} decisions: {table}")


@app.command(name="import", help_formatter=HelpPage())
def import_(project: Annotated[Path, PathKind.ADDRESS], table: Path) -> None:
    """Take the decisions of a table, as export writes it. A later one takes the place of an earlier one.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    table
        .csv or .jsonl with the column what, and value, reason, who; and key or file, and source.
    """
    _check_suffix(table)
    target = find_target(project)
    reader = _Reader(target)
    plan: dict[Collection, list[Decision]] = {}
    try:
        for row in read_table(table):
            where = f"{table}, row {row.number}"
            if row.fault:
                raise UserError(f"{where} can't be read ({row.fault}); mend it, or leave it out.")
            collection, decision = reader.read(row.cells, where)
            plan.setdefault(collection, []).append(decision)
    except (OSError, DocumentError) as error:
        raise UserError(f"{table} can't be read ({error}); name a .csv or .jsonl of decisions.") from None
    counts = carry_out(plan)
    print(f"imported: {', '.join(f'{count:,} of {source}' for source, count in counts.items()) or 'nothing'}")
    if reader.gone:
        print(f"{reader.gone:,} of them are of images that are not here now; they count when these come back")


def _rows(target: Target, counting: bool) -> Iterator[dict[str, str | None]]:
    """Yields a row for each decision: those that count, or all that were not taken back, in order."""
    for collection in target.collections:
        decisions = collection.decisions()
        words = decisions.counting() if counting else [word for said in decisions.words.values() for word in said]
        if not words:
            continue
        files = {image.key: image.file for image in find_images([collection], target.workspace, [], "true")}
        for word in sorted(words, key=lambda word: word.time):
            row = {"source": collection.name, "file": files.get(word.key), **word._asdict(), "what": str(word.what)}
            yield {name: row[name] for name in _COLUMNS}


class _Reader:
    """Reads rows of a table as decisions about the images of a target."""

    def __init__(self, target: Target) -> None:
        self.gone = 0
        """Decisions about images that are not in their collection."""
        self._collections = {collection.name: collection for collection in target.collections}
        self._time = next_time(collection.decisions() for collection in target.collections)
        self._index = cache(lambda source: ImageIndex(self._searched(source), target.workspace))

    def read(self, cells: Mapping[str, Any], where: str) -> tuple[Collection, Decision]:
        """Returns whose decision a row is, and what it says.

        Raises:
            UserError: it names no image, no such source, or no such decision; or it has a column of another name.
        """
        if unknown := [name for name in cells if name and name not in _COLUMNS]:
            raise UserError(
                f"{where}: decisions have no column {brief(unknown[0])} ({suggestion(unknown[0], _COLUMNS)}). "
                "Rename it, or remove it."
            )
        what = str(cells.get("what") or "").strip()
        if what not in set(What) - {What.IMAGE}:
            raise UserError(f"{where}: there is no decision {what!r}; one is {', '.join(set(What) - {What.IMAGE})}.")
        collection, key = self._image(cells, where)
        value = cells.get("value")
        if value is None and what == What.CAPTION:
            raise UserError(f"{where} has no caption; write it in the column value.")
        try:
            value = check_value(What(what), None if value is None else str(value))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        reason, who = cells.get("reason") or None, cells.get("who") or HAND
        return collection, Decision(key, self._time, What(what), value, reason and str(reason), str(who))

    def _searched(self, source: str) -> list[Collection]:
        return [self._collections[source]] if source else list(self._collections.values())

    def _image(self, cells: Mapping[str, Any], where: str) -> tuple[Collection, str]:
        """Returns the collection and the key of the image that a row names."""
        source, key, file = (str(cells.get(name) or "") for name in ("source", "key", "file"))
        if source and source not in self._collections:
            raise UserError(f"{where}: there is no source {source}; there are {', '.join(self._collections)}.")
        if not key and not file:
            raise UserError(f"{where} names no image; write its key or its file.")
        index = self._index(source)
        if key and source and not index.has_key(key):
            self.gone += 1
            return self._collections[source], key
        try:
            image = index.find([key or file])[0]
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return image.collection, image.key


def _check_suffix(table: Path) -> None:
    if table.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{table} is no table; name one that ends in {' or '.join(_SUFFIXES)}.")
