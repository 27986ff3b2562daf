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

A part is stale when its recipe is not the one its stage would use now, and nothing else decides that. Recipes name
upstream parts by their stamp (recipe and digest), so a change runs down the chain, and touches nothing else.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import TEMPORARY, commit, lock
from dreamloom.base.stage import StageConfig, Summary


class Status(StrEnum):
    """What became of a candidate. `ok` alone has an image; the names are stable, for `--retry` and for counting."""

    OK = "ok"
    # the address
    BAD_URL = "bad_url"
    BAD_SCHEME = "bad_scheme"
    PRIVATE_ADDRESS = "private_address"
    # the network
    DNS_UNKNOWN = "dns_unknown"
    DNS_TEMPORARY = "dns_temporary"
    CONNECTION = "connection"
    HOST_DOWN = "host_down"
    TLS = "tls"
    TIMEOUT = "timeout"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    SHORT_BODY = "short_body"
    TOO_LARGE = "too_large"
    # the host's answer
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    OPTED_OUT = "opted_out"
    # the file
    MISSING_FILE = "missing_file"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    BAD_ASPECT = "bad_aspect"
    ANIMATED = "animated"
    PLACEHOLDER = "placeholder"
    HASH_MISMATCH = "hash_mismatch"
    DUPLICATE = "duplicate"
    # none of these: enough images had come
    NOT_NEEDED = "not_needed"


class Choice(StrEnum):
    """Whether an image goes on into the dataset, or the first rule that it did not pass."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    LOW_AESTHETIC = "low_aesthetic"
    LOW_SIMILARITY = "low_similarity"
    LICENCE = "licence"


class CaptionKind(StrEnum):
    """Where a caption comes from."""

    HUMAN = "human"
    """Somebody wrote it for this image: COCO, a sidecar, a file name."""
    ALT = "alt"
    """The alt text a web page gave the image: LAION."""
    TEMPLATE = "template"
    """One text for all images of a kind: FFHQ, ImageNet."""
    MODEL = "model"
    """A captioning model wrote it."""
    NONE = "none"
    """There is none yet."""


class Table(StrEnum):
    """The tables of a collection, in the order in which the chain fills them."""

    CANDIDATES = "candidates"
    RECORDS = "records"
    SCORES = "scores"
    CHOICES = "choices"
    CAPTIONS = "captions"


_KEY = pa.field("key", pa.string(), nullable=False)
_CANDIDATE = pa.struct(
    [
        ("caption", pa.string()),
        ("kind", pa.string()),  # CaptionKind
        ("score", pa.float32()),
        ("similarity", pa.float32()),
    ]
)

SCHEMAS: dict[Table, pa.Schema] = {
    Table.CANDIDATES: pa.schema(
        [
            _KEY,
            pa.field("url", pa.string()),
            pa.field("text", pa.string()),  # alt text or caption, as the index has it
            pa.field("width", pa.int32()),  # pixels, as the index claims; swapped in some LAION sets
            pa.field("height", pa.int32()),
            pa.field("similarity", pa.float32()),  # CLIP cosine of image and text, by the index
            pa.field("aesthetic", pa.float32()),  # by the index; V1 and V2 scales are not comparable
            pa.field("punsafe", pa.float32()),  # probability of being unsafe; null is not safe
            pa.field("pwatermark", pa.float32()),  # probability of a watermark
            pa.field("language", pa.string()),
            pa.field("licence", pa.string()),
            pa.field("md5", pa.string()),  # of the bytes the index saw, where it says
            pa.field("sha256", pa.string()),
            pa.field("text_kind", pa.string()),  # CaptionKind; null: alt, as an index of the web has it
            pa.field("licence_url", pa.string()),
        ]
    ),
    Table.RECORDS: pa.schema(
        [
            _KEY,
            pa.field("status", pa.string(), nullable=False),  # Status
            pa.field("detail", pa.string()),  # a line about a status that is not ok
            pa.field("url", pa.string()),  # where it was fetched, or can be seen
            pa.field("path", pa.string()),  # the file it was read from, where there is one
            pa.field("image", pa.string()),  # images/<part>/<key>.<ext>, relative to the collection; null unless ok
            pa.field("width", pa.int32()),  # pixels of the stored image, upright
            pa.field("height", pa.int32()),
            pa.field("original_width", pa.int32()),
            pa.field("original_height", pa.int32()),
            pa.field("bytes", pa.int64()),  # of the stored image
            pa.field("sha256", pa.string()),  # of the bytes as they came: equal images are found by it
            pa.field("pixels_sha256", pa.string()),  # of the decoded pixels, where scrape was asked for it
            pa.field("text", pa.string()),  # the caption it came with
            pa.field("text_kind", pa.string(), nullable=False),  # CaptionKind
            pa.field("licence", pa.string()),
            pa.field("licence_url", pa.string()),
            pa.field("author", pa.string()),
            pa.field("consent", pa.string()),  # what X-Robots-Tag, robots.txt or TDM-Reservation said, where asked
        ]
    ),
    Table.SCORES: pa.schema(
        [
            _KEY,
            pa.field("embedding", pa.list_(pa.float16())),  # of the image, L2-normalised
            pa.field("aesthetic", pa.float32()),  # null where the config names no head
            pa.field("similarity", pa.float32()),  # CLIP cosine of image and its text; null where it has none
            pa.field("phash", pa.int64()),  # 64-bit perceptual hash, as a signed integer
        ]
    ),
    Table.CHOICES: pa.schema(
        [
            _KEY,
            pa.field("choice", pa.string(), nullable=False),  # Choice
            pa.field("detail", pa.string()),  # "aesthetic 4.9 < 5.5", or the key it repeats
        ]
    ),
    Table.CAPTIONS: pa.schema(
        [
            _KEY,
            pa.field("caption", pa.string(), nullable=False),  # may be empty
            pa.field("unedited", pa.string()),  # what it was before the edits
            pa.field("kind", pa.string(), nullable=False),  # CaptionKind
            pa.field("model", pa.string()),  # the model that wrote it, where one did
            pa.field("score", pa.float32()),  # the model's mean log-probability a token, where it gives one
            pa.field("similarity", pa.float32()),  # CLIP cosine of image and unedited, where CLIP was asked
            pa.field("margin", pa.float32()),  # by how much that is above the next candidate's
            pa.field("clip", pa.string()),  # the CLIP that was asked
            pa.field("doubtful", pa.bool_()),  # whether the similarity is under the floor; null: there is no floor
            pa.field("candidates", pa.list_(_CANDIDATE)),  # all that were found, in order; null: it is a kept text
            pa.field("recipe", pa.string()),  # recipe by which the candidates of this image were found
        ]
    ),
}
"""Every table has one row a key of its upstream table that went on: scores, one a record whose status is ok;
choices, one a score or record; captions, one a choice that was kept. Keys are unique and in the upstream order."""


def key_of(*identity: str) -> str:
    """The stable name of an image: a hash of where it comes from, never of its bytes or its place in a list.

    Args:
        identity: what makes the source unique: ("url", url), or ("coco", "000000000009"), or ("folder", relative path).

    Returns:
        32 hex digits, the same on every machine and in every run.
    """
    return hashlib.blake2b("\0".join(identity).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


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
            UserError: a part can't be read.
        """
        names = self.parts(table) if part is None else [part]
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
        made = {
            "recipe": recipe,
            "digest": digest_of(content),
            "config": config.model_dump_json(),
            "models": json.dumps(dict(models or {})),
            "summary": summary.to_json(),
        }
        metadata = {f"dreamloom.{name}": value for name, value in made.items()}
        with commit(self.part_path(table, part)) as temporary:
            pq.write_table(content.replace_schema_metadata(metadata), temporary, compression="zstd")

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
        path = self.part_path(table, part)
        if not path.exists():
            return {}
        try:
            metadata = pq.read_metadata(path).metadata or {}
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} can't be read ({error}); delete it, and its stage makes it again.") from error
        prefix = b"dreamloom."
        return {k[len(prefix) :].decode(): v.decode() for k, v in metadata.items() if k.startswith(prefix)}


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
