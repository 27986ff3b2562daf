"""The Collection: one source's images, and all that is known of them. What flows between stages is here.

    laion-people/
      candidates/00000.parquet     rows chosen from an index, not yet fetched        (filter)
      records/00000.parquet        one row a candidate: what became of it            (scrape, ingest)
      images/00000/<key>.jpg       the images of the records whose status is `ok`  (scrape, ingest)
      scores/00000.parquet         embedding, aesthetic, similarity, pHash           (score)
      choices/00000.parquet        which images go on, and why the others do not   (choose)
      captions/00000.parquet       captions, which model made them                   (caption)

A table is a folder of parts; a part is a parquet file of at most some 10,000 rows, and the unit of work, of resume, of
parallelism and of a Prefect task. Part 00007 of every table speaks of the same keys. A part is committed whole, so a
part that is there is done. Its metadata says how it was made:

    dreamloom.recipe    the hash of the stage's config, code version, models and upstream stamps (base.stage.recipe)
    dreamloom.digest    the hash of its rows
    dreamloom.config    the stage's config, as JSON
    dreamloom.models    fingerprints of the models that it used, as JSON
    dreamloom.summary   rows in, kept, dropped by reason (dreamloom.base.stage.Summary), as JSON
    dreamloom.schema    the version of the format (dreamloom.base.versions)

A part is stale when its recipe is not the one its stage would use now, and nothing else decides that. Recipes name
upstream parts by their stamp (recipe and digest), so a change runs down the chain, and touches nothing else.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import TEMPORARY, lock
from dreamloom.base.parquet_metadata import read_metadata, write_table
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection.schema import SCHEMAS, Table


@dataclass(frozen=True)
class FunnelRow:
    """How many rows a table took in and let go, and where the others went."""

    table: str
    summary: Summary


@dataclass(frozen=True)
class Collection:
    """A folder that holds one source's images and tables. Making the object touches nothing on disk."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's name, which is the source's name in a project."""
        return self.root.name

    def lock(self) -> AbstractContextManager[None]:
        """Holds the collection for this process; see dreamloom.base.files.lock. Every writer takes it.

        Raises:
            UserError: another process holds it.
        """
        return lock(self.root)

    def part_path(self, table: Table, part: str) -> Path:
        """Where a part of a table lies."""
        return self.root / table / f"{part}.parquet"

    def image_folder(self, part: str) -> Path:
        """Where the images of a part lie."""
        return self.root / "images" / part

    def parts(self, table: Table) -> list[str]:
        """The names of the committed parts ("00000", …), sorted."""
        return sorted(p.stem for p in (self.root / table).glob("*.parquet") if not p.name.startswith(TEMPORARY))

    def read(self, table: Table, part: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one part, or of all parts in order; no rows where there is no part.

        Raises:
            UserError: a part can't be read, or a newer release wrote it in another way.
        """
        names = self.parts(table) if part is None else [part]
        for name in names:
            self._metadata(table, name)  # which refuses what it would misread
        schema = pa.schema([SCHEMAS[table].field(c) for c in columns or SCHEMAS[table].names])
        try:
            tables = [
                pq.read_table(self.part_path(table, n), columns=columns, schema=SCHEMAS[table], partitioning=None)
                for n in names
            ]
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"A part of {self.root / table} can't be read ({error}); delete it, and its stage makes it again."
            ) from error
        return pa.concat_tables([_conform(t, schema) for t in tables]) if tables else schema.empty_table()

    def recipe(self, table: Table, part: str) -> str | None:
        """The recipe by which a part was made; None where it is not there."""
        return self._metadata(table, part).get("recipe")

    def stamp(self, table: Table, part: str) -> str:
        """Names a part by how it was made and what is in it, for the recipes of parts made from it.

        Raises:
            UserError: the part is not there.
        """
        made = self._metadata(table, part)
        if not made:
            raise UserError(f"{self.part_path(table, part)} is not there; run the stage that makes {table} first.")
        return f"{made['recipe']}-{made['digest']}"

    def stamps(self, table: Table) -> list[str]:
        """The stamps of all parts of a table, in order."""
        return [self.stamp(table, part) for part in self.parts(table)]

    def config(self, table: Table, part: str) -> dict[str, Any]:
        """The config by which a part was made; empty where it is not there."""
        return dict(json.loads(self._metadata(table, part).get("config", "{}")))

    def models(self, table: Table, part: str) -> dict[str, str]:
        """The fingerprints of the models by which a part was made, by role; empty where none is told."""
        return dict(json.loads(self._metadata(table, part).get("models", "{}")))

    def summary(self, table: Table, part: str | None = None) -> Summary:
        """The summary of one part, or of all parts added up."""
        parts = self.parts(table) if part is None else [part]
        summaries = (Summary.from_json(self._metadata(table, name)["summary"]) for name in parts)
        return sum(summaries, start=Summary())

    def funnel(self) -> list[FunnelRow]:
        """Rows in, kept and dropped by reason, for each table that is there, in the order of the chain."""
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
    ) -> None:
        """Commits a part: all of it, or nothing.

        Args:
            rows: a pyarrow table, or dictionaries; columns left out are null, columns not in the schema are errors.

        Raises:
            ValueError: a key twice, a column that the schema does not have, or summary that does not add up.
        """
        content = _content(table, rows)
        if summary.kept + sum(summary.dropped.values()) != summary.rows:
            raise ValueError(f"the summary of {table}/{part} does not add up: {summary}")
        metadata = {
            "recipe": recipe,
            "digest": digest_of(content),
            "config": config.model_dump_json(),
            "models": json.dumps(dict(models or {})),
            "summary": summary.to_json(),
        }
        write_table(self.part_path(table, part), content, metadata)

    def remove_parts(self, table: Table, keep: Iterable[str]) -> None:
        """Removes the parts of a table that a new plan has no place for, and their images. They are ours."""
        for part in set(self.parts(table)) - set(keep):
            if table is Table.RECORDS:
                shutil.rmtree(self.image_folder(part), ignore_errors=True)
            self.part_path(table, part).unlink()

    def find(self, key: str) -> dict[Table, dict[str, Any]]:
        """What each table says of a key, or of the first key that begins so; empty where none knows it."""
        found: dict[Table, dict[str, Any]] = {}
        for table in Table:
            for part in self.parts(table):
                rows = self.read(table, part)
                at = [i for i, k in enumerate(rows.column("key").to_pylist()) if k.startswith(key)]
                if at:
                    found[table] = {**rows.slice(at[0], 1).to_pylist()[0], "part": part}
                    break
        return found

    def _metadata(self, table: Table, part: str) -> dict[str, str]:
        return read_metadata(self.part_path(table, part), "its stage")


def open_collection(root: Path, needs: Table) -> Collection:
    """An existing collection whose table `needs` is there, for a stage that works on it.

    Raises:
        UserError: there is no such folder, or the table has no part.
    """
    collection = Collection(root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder; name a collection, which filter or ingest makes.")
    if not collection.parts(needs):
        raise UserError(f"{root} has no {needs} yet; run the stage that makes them first.")
    return collection


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
        raise ValueError(f"{table}: a key is null or stands twice in one part")
    return content


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with the schema's columns, in its order; a column they lack is null."""
    names = set(rows.schema.names)
    columns = [rows.column(f.name).cast(f.type) if f.name in names else pa.nulls(len(rows), f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def digest_of(rows: pa.Table) -> str:
    """Names the rows of a table: 32 hex digits."""
    sink = _Hasher()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), rows.schema.remove_metadata()) as stream:
        stream.write_table(rows.combine_chunks().replace_schema_metadata(None))
    return sink.hash.hexdigest()


class _Hasher:
    """A file to write to, of which only the hash is kept."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
