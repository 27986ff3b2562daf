"""The Collection: one source's images and everything known about them. Stages pass collections to each other.

    laion-people/
      candidates/00000.parquet     rows selected from an index, not yet downloaded     (filter)
      records/00000.parquet        one row per candidate: what became of it            (scrape, ingest)
      images/00000/<key>.jpg       the images of the records whose status is `ok`      (scrape, ingest)
      scores/00000.parquet         embedding, aesthetic, similarity, pHash             (score)
      choices/00000.parquet        which images go on, and why the others do not       (choose)
      captions/00000.parquet       captions, and the model that wrote them             (caption)
      decisions/00000.parquet      what was said of single images, and by whom         (decisions.py)

A table is a folder of parts. A part is a parquet file of about 10,000 rows at most, and the unit of work, of resuming,
of parallelism and of a Prefect task. Part 00007 of every table holds rows of the same keys. A part is committed
atomically, so a part that exists is complete. Its metadata (base.tables.parquet_metadata) tells how it was made:

    dreamloom.recipe    hash of the stage's config, code version, models and upstream stamps (base.stage.recipe)
    dreamloom.digest    hash of its rows
    dreamloom.config    the stage's config, as JSON
    dreamloom.models    fingerprints of the models used, as JSON
    dreamloom.summary   rows in, kept, dropped by reason (dreamloom.base.stage.Summary), as JSON
    dreamloom.schema    the version of the format (dreamloom.base.versions)

A part is stale when its recipe is not the one that its stage would use now; nothing else decides that. Recipes contain
the stamps (recipe and digest) of the upstream parts, so a change reaches exactly what depends on it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base import html
from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import remove_leftovers
from dreamloom.base.files.remote import address_of
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.base.tables.parquet_metadata import digest_table
from dreamloom.base.text import is_utf8
from dreamloom.base.versions import FIRST
from dreamloom.scrape.collection.decisions import (
    FOLDER,
    SCHEMA,
    Decision,
    Decisions,
    decision_rows,
    read_decision_files,
)
from dreamloom.scrape.collection.migrations import migrate_config
from dreamloom.scrape.collection.place import FolderPlace, Place, Worker
from dreamloom.scrape.collection.schema import MADE_BY, SCHEMAS, Status, Table
from dreamloom.scrape.collection.table_view import TableView


@dataclass(frozen=True)
class FunnelRow:
    """A table's rows in, kept, and dropped by reason."""

    table: str
    summary: Summary


@dataclass(frozen=True)
class Collection:
    """One source's images and tables, in a folder or at an address in a store. Creating the object touches neither."""

    root: Path
    """Its folder; of one at an address, a folder of this machine for what is under way."""
    address: str | None = field(repr=False)

    def __init__(self, root: Path | str) -> None:
        """Stores where it is: a path, or an address such as s3://bucket/people."""
        address = address_of(root)
        object.__setattr__(self, "address", address)
        if address is None:
            object.__setattr__(self, "root", Path(root))
        else:
            from dreamloom.scrape.collection.store_cache import folder_of

            object.__setattr__(self, "root", folder_of(address))

    def __reduce__(self) -> tuple[type["Collection"], tuple[Path | str]]:
        """For workers of Ray, on machines where another folder is for what is under way."""
        return Collection, (self.address or self.root,)

    @cached_property
    def place(self) -> Place:
        """What lies of it where."""
        if self.address is None:
            return FolderPlace(self.root)
        from dreamloom.scrape.collection.store_place import StorePlace

        return StorePlace(self.address, self.root)

    @property
    def where(self) -> str:
        """Its address or its folder, for people."""
        return self.address or str(self.root)

    @property
    def name(self) -> str:
        """Name of the folder, which is the source's name in a project."""
        return self.root.name

    def lock(self) -> AbstractContextManager[Worker]:
        """Locks the collection for this process (base.sharing.workers). Everything that writes locks or shares it.

        Raises:
            UserError: another process works on it, or the path is not UTF-8, as parquet files need.
        """
        return self._work_in(None)

    def share(self, table: Table, recipes: Mapping[str, str]) -> AbstractContextManager[Worker]:
        """Works on a table beside other processes that make it by the same recipes.

        Args:
            table: the table to make.
            recipes: part → recipe, for the parts to make.

        Raises:
            UserError: another process works on the collection, on something else or by another recipe; or the path is
                not UTF-8.
        """
        first = min(recipes.items(), default=("", ""))  # two configs differ in it, too
        return self._work_in(dict([("table", str(table)), first]))

    def _work_in(self, work: Mapping[str, str] | None) -> AbstractContextManager[Worker]:
        if not is_utf8(str(self.root)):
            raise UserError(f"The path {self.root} is not UTF-8; name another folder for the collection.")
        return self.place.work(work)

    def part_path(self, table: Table, part: str) -> Path:
        """Returns the file of a part of a table; of a collection at an address, one in the cache."""
        return self.place.path(table, part)

    def image_folder(self, part: str) -> Path:
        """Returns the folder of a part's images, of a collection at an address as long as the part is made."""
        return self.root / "images" / part

    def image(self, name: str) -> Path | bytes:
        """Returns an image, by its name in the records: its file, which may be missing, or its bytes."""
        return self.place.image(name)

    def decisions(self) -> Decisions:
        """Reads what was decided of single images.

        Raises:
            UserError: a part can't be read, or a newer release wrote it in another way.
        """
        return read_decision_files(self.decision_files())

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Adds decisions to those that were taken, all of them or none; nothing for none.

        Raises:
            UserError: another process works on this collection, or the address can't be written to.
        """
        if not decisions:
            return
        with self.lock():
            remove_leftovers(self.root / FOLDER)
            parts = self.place.parts(FOLDER)
            number = int(parts[-1]) + 1 if parts else 0
            self.place.put(FOLDER, f"{number:05d}", decision_rows(decisions), {})

    def decision_files(self) -> list[Path]:
        """Returns the files of the decisions, in order."""
        return [self.place.path(FOLDER, part) for part in self.place.parts(FOLDER)]

    def parts(self, table: Table) -> list[str]:
        """Returns the names of the committed parts ("00000", …), sorted."""
        return self.place.parts(table)

    def read(self, table: Table, part: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads one part, or all parts in order; a table without parts has no rows.

        Raises:
            UserError: a part can't be read, or a newer release wrote it in another way.
        """
        names = self.parts(table) if part is None else [part]
        for name in names:
            self._metadata(table, name)  # which refuses a newer major version
        schema = pa.schema([SCHEMAS[table].field(column) for column in columns or SCHEMAS[table].names])
        try:
            tables = [_read_columns(self.part_path(table, name), schema.names) for name in names]
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"A part of {self.where}/{table} can't be read ({error}); delete it, and its stage makes it again."
            ) from error
        return pa.concat_tables([_conform(rows, schema) for rows in tables]) if tables else schema.empty_table()

    def table(self, name: Table | str, columns: Sequence[str] | None = None) -> TableView:
        """Reads a table to look at and to work with: `collection.table("captions").to_pandas()`.

        Args:
            columns: names of the columns; None: all.

        Raises:
            UserError: there is no such table or column, or a part can't be read.
        """
        if name not in set(Table):
            raise UserError(f"There is no table {name}; a collection has {', '.join(Table)}.")
        valid = SCHEMAS[Table(name)].names
        if unknown := set(columns or ()) - set(valid):
            raise UserError(f"{name} has no column {', '.join(sorted(unknown))}; it has {', '.join(valid)}.")
        return TableView(self.read(Table(name), columns=columns))

    def query(self, sql: str) -> TableView:
        """Runs a read-only SQL statement of DuckDB's dialect over the collection's tables, straight from their parts.

        For example: `collection.query("select status, count(*) from records group by all")`.

        Raises:
            UserError: the statement is wrong or asks for something else than the tables, or a part can't be read.
        """
        from dreamloom.scrape.collection.query import query  # DuckDB from here on

        return TableView(query(sql, self.sql_tables()))

    def sql_tables(self) -> dict[str, tuple[pa.Schema, list[Path]]]:
        """Returns name → schema and parts of each table, for `dreamloom.scrape.collection.query`.

        Raises:
            UserError: a newer release wrote a part in another way.
        """
        tables: dict[str, tuple[pa.Schema, list[Path]]] = {FOLDER: (SCHEMA, self.decision_files())}
        for table in Table:
            parts = self.parts(table)
            for part in parts:
                self._metadata(table, part)  # which refuses a newer major version
            tables[str(table)] = SCHEMAS[table], [self.part_path(table, part) for part in parts]
        return tables

    def recipe(self, table: Table, part: str) -> str | None:
        """Returns the recipe by which a part was made; None where the part does not exist."""
        return self._metadata(table, part).get("recipe")

    def content_recipe(self, table: Table, part: str) -> str | None:
        """Returns the recipe of a part that knows its files by their bytes; None where it has none."""
        return self._metadata(table, part).get("content_recipe")

    def stamp(self, table: Table, part: str) -> str:
        """Identifies a part by its recipe and its rows, for the recipes of parts made from it.

        Raises:
            UserError: the part does not exist.
        """
        metadata = self._metadata(table, part)
        if not metadata:
            raise UserError(f"{self.where}/{table}/{part}.parquet does not exist; run {MADE_BY[table]} first.")
        return f"{metadata['recipe']}-{metadata['digest']}"

    def digest(self, table: Table, part: str) -> str | None:
        """Returns the hash of a part's rows; None where the part does not exist."""
        return self._metadata(table, part).get("digest")

    def stamps(self, table: Table) -> list[str]:
        """Returns the stamps of all parts of a table, in order."""
        return [self.stamp(table, part) for part in self.parts(table)]

    def config(self, table: Table, part: str) -> dict[str, Any]:
        """Returns the config with which a part was made; empty where the part does not exist.

        Keys of older releases have the names that they have now; a newer minor version may have added some.
        """
        metadata = self._metadata(table, part)
        config = json.loads(metadata.get("config", "{}"))
        return migrate_config(table, metadata.get("schema", FIRST), config)

    def models(self, table: Table, part: str) -> dict[str, str]:
        """Returns the fingerprints of the models used for a part, by role; empty where none was used."""
        return dict(json.loads(self._metadata(table, part).get("models", "{}")))

    def summary(self, table: Table, part: str | None = None) -> Summary:
        """Returns the summary of one part, or the sum over all parts."""
        parts = self.parts(table) if part is None else [part]
        summaries = (Summary.from_json(self._metadata(table, name)["summary"]) for name in parts)
        return sum(summaries, start=Summary())

    def samples(self, count: int = 8) -> list[tuple[Path | bytes, str]]:
        """Returns the first images with their captions, or with the texts they came with where none is written."""
        import pyarrow.compute as pc

        captions: dict[str, str] = {}
        images: list[dict[str, Any]] = []
        for part in self.parts(Table.RECORDS):
            rows = self.read(Table.RECORDS, part, ["key", "status", "image", "text"])
            images += rows.filter(pc.equal(rows["status"], Status.OK)).slice(0, count - len(images)).to_pylist()
            if part in self.parts(Table.CAPTIONS):
                written = self.read(Table.CAPTIONS, part, ["key", "caption"])
                captions |= dict(zip(written["key"].to_pylist(), written["caption"].to_pylist(), strict=True))
            if len(images) >= count:
                break
        return [(self.image(row["image"]), captions.get(row["key"], row["text"] or "")) for row in images]

    def funnel(self) -> list[FunnelRow]:
        """Returns rows in, kept and dropped by reason, for each table that has parts, in the order of the chain."""
        return [FunnelRow(str(table), self.summary(table)) for table in Table if self.parts(table)]

    def write(
        self,
        table: Table,
        part: str,
        rows: pa.Table | Sequence[Mapping[str, Any]],
        *,
        recipe: str,
        config: StageConfig,
        summary: Summary,
        models: Mapping[str, str] | None = None,
        content_recipe: str | None = None,
    ) -> None:
        """Writes a part atomically.

        Args:
            table: the table that the part belongs to.
            part: name of the part.
            rows: a pyarrow table, or dictionaries. Missing columns are null; columns not in the schema are errors.
            recipe: how the part is made; it is stale when its stage would use another.
            config: config of the stage, for readers of the part.
            summary: counts of the rows.
            models: fingerprints of the models used, by role.
            content_recipe: the recipe that knows the files it is made from by their bytes; None: there is none.

        Raises:
            ValueError: a key that occurs twice, a column that the schema lacks, or a summary that does not add up.
        """
        content = _content(table, rows)
        if summary.kept + sum(summary.dropped.values()) != summary.rows:
            raise ValueError(f"the summary of {table}/{part} does not add up: {summary}")
        metadata = {
            "recipe": recipe,
            "digest": digest_table(content),
            "config": config.model_dump_json(),
            "models": json.dumps(dict(models or {})),
            "summary": summary.to_json(),
            **({"content_recipe": content_recipe} if content_recipe else {}),
        }
        self.place.put(table, part, content, metadata)

    def remove_parts(self, table: Table, keep: Iterable[str]) -> None:
        """Removes the parts of a table that are not in `keep`, and the images of removed records; all of it is ours."""
        self.place.remove(table, sorted(set(self.parts(table)) - set(keep)))

    def find(self, key: str) -> dict[Table, dict[str, Any]]:
        """Looks a key up in every table.

        Args:
            key: a key, or its first characters; the first key that starts with them counts.

        Returns:
            Table → its row, with the name of its part as `part`; tables without the key are left out.
        """
        rows_by_table: dict[Table, dict[str, Any]] = {}
        for table in Table:
            for part in self.parts(table):
                rows = self.read(table, part)
                matches = [place for place, each in enumerate(rows["key"].to_pylist()) if each.startswith(key)]
                if matches:
                    rows_by_table[table] = {**rows.slice(matches[0], 1).to_pylist()[0], "part": part}
                    break
        return rows_by_table

    def _repr_html_(self) -> str:
        rows = [{"table": row.table, **row.summary.to_row()} for row in self.funnel()]
        return f"<b>{html.text(self.name)}</b>{html.table(rows)}{html.thumbnails(self.samples())}"

    def _metadata(self, table: Table, part: str) -> dict[str, str]:
        return self.place.metadata(table, part)


def open_collection(collection: Collection | Path, needs: Table) -> Collection:
    """Opens an existing collection in its newest state, for a stage that reads its table `needs`.

    Args:
        collection: the collection, or where it is.
        needs: a table.

    Raises:
        UserError: the folder does not exist, or the table has no parts.
    """
    opened = Collection(collection) if isinstance(collection, Path) else collection
    if opened.address is None and not opened.root.is_dir():
        raise UserError(f"{opened.root} is not a folder; name a collection, made by filter or ingest.")
    opened.place.refresh()
    if not opened.parts(needs):
        raise UserError(f"{opened.where} has no {needs} yet; run {MADE_BY[needs]} first.")
    return opened


def _content(table: Table, rows: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = SCHEMAS[table]
    names = set(rows.schema.names) if isinstance(rows, pa.Table) else {name for row in rows for name in row}
    if names - set(schema.names):
        raise ValueError(f"{table} has no column {sorted(names - set(schema.names))}")
    if isinstance(rows, pa.Table):
        content = _conform(rows, schema)
    else:
        content = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    keys = content.column("key")
    if keys.null_count or len(keys.unique()) != len(keys):
        raise ValueError(f"{table}: a key is null or occurs twice in one part")
    return content


def _read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Reads the columns that a file has of these; pq.read_table would import pandas, which takes half a second."""
    with pq.ParquetFile(path) as file:
        return file.read([name for name in names if name in file.schema_arrow.names])


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns `rows` with the schema's columns, in its order; missing columns are null."""
    return pa.Table.from_arrays([_column(rows, field) for field in schema], schema=schema)


def _column(rows: pa.Table, field: pa.Field) -> "pa.Array | pa.ChunkedArray":
    if field.name not in rows.schema.names:
        return pa.array([None] * len(rows), field.type)  # of lists, pa.nulls makes others than parquet gives back
    column = rows.column(field.name)
    return column if column.type == field.type else column.cast(field.type)  # a cast imports pyarrow.compute
