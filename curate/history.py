"""What became of every image of a source: a row per record, with what the tables say about it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table
from dreamloom.scrape.collection.decisions import Decision, What, digest

UNREADABLE = "unreadable"
"""The reason of an image that could not be decoded any more; later tables don't have it."""

HISTORY = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # Role
        pa.field("stage", pa.string()),  # the table where the row was dropped; null where it was not
        pa.field("reason", pa.string()),  # a Status, a Choice, or unreadable
        pa.field("detail", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("caption_kind", pa.string()),
        pa.field("caption_model", pa.string()),
        *(
            SCHEMAS[Table.RECORDS].field(name)
            for name in ("url", "path", "licence", "licence_url", "author", "sha256", "labels", "width", "height")
        ),
        *(SCHEMAS[Table.RECORDS].field(name) for name in ("image", "bytes", "image_sha256")),
        pa.field("aesthetic", pa.float32()),
        pa.field("similarity", pa.float32()),
        pa.field("rating", pa.float64()),  # decided: how often it is shown for each time that another of its source is
        pa.field("loss_scale", pa.float64()),  # decided: the factor of its loss
        pa.field("flip", pa.string()),  # decided: whether it may be mirrored, yes or no
        pa.field("crop", pa.string()),  # decided: the part that is shown
        pa.field("focus", pa.string()),  # decided: the point that crops keep
        pa.field("decided_role", pa.string()),  # decided: witness, where it is never trained on
        pa.field("replaced", pa.string()),  # decided: the file in place of its image, relative to the collection
    ]
)

_DECIDED = {
    "rating": What.MULTIPLY,
    "loss_scale": What.LOSS_SCALE,
    "flip": What.FLIP,
    "crop": What.CROP,
    "focus": What.FOCUS,
    "decided_role": What.ROLE,
    "replaced": What.IMAGE,
}
"""Column → the decision that it holds; null where there is none."""


def decided_digest(collection: Collection) -> str:
    """Returns a hash of the decisions that the history tells; empty where there is none (decisions.digest)."""
    decisions = collection.decisions()
    return digest(word for what in _DECIDED.values() for word in decisions.standing(what).values())


def read_history(source: Source) -> pa.Table:
    """Reads every record of a source, in order, with the stage that dropped it and why, or its caption (HISTORY).

    Without a captions table, captions are the texts that the images came with.

    Raises:
        UserError: choices are missing, or choices or captions don't belong to the records.
    """
    collection = source.collection
    captioned = bool(collection.parts(Table.CAPTIONS))
    decisions = collection.decisions()
    decided = {name: decisions.standing(what) for name, what in _DECIDED.items()}
    parts = [_read_part(source, part, captioned, decided) for part in collection.parts(Table.RECORDS)]
    if captioned and sum(chosen for _, chosen in parts) != collection.summary(Table.CAPTIONS).rows:
        raise _outdated(collection, Table.CAPTIONS)
    return pa.concat_tables([rows for rows, _ in parts]) if parts else HISTORY.empty_table()


def _read_part(
    source: Source, part: str, captioned: bool, decided: Mapping[str, Mapping[str, Decision]]
) -> tuple[pa.Table, int]:
    """Reads the history of a part, and counts its chosen images."""
    import pyarrow.compute as pc

    collection = source.collection
    records = collection.read(Table.RECORDS, part)
    ok = pc.equal(records["status"], Status.OK)
    scores = _joined(collection, Table.SCORES, part, records["key"], ["aesthetic", "similarity"])
    scored = scores["exists"] if collection.parts(Table.SCORES) else ok
    choices = _joined(collection, Table.CHOICES, part, records["key"], ["choice", "detail"])
    if not choices["exists"].equals(pc.and_(ok, scored).combine_chunks()):
        raise _outdated(collection, Table.CHOICES)
    chosen = pc.fill_null(pc.equal(choices["choice"], Choice.KEPT), False)
    captions = _joined(collection, Table.CAPTIONS, part, records["key"], ["caption", "kind", "model"])
    if captioned and pc.any(pc.and_not(captions["exists"], chosen)).as_py():
        raise _outdated(collection, Table.CAPTIONS)
    drops = [
        (pc.invert(ok), Table.RECORDS, records["status"], records["detail"]),
        (pc.invert(scored), Table.SCORES, UNREADABLE, None),
        (pc.invert(chosen), Table.CHOICES, choices["choice"], choices["detail"]),
        (pc.invert(captions["exists"] if captioned else chosen), Table.CAPTIONS, UNREADABLE, None),
    ]
    texts = {"caption": pc.fill_null(records["text"], ""), "kind": records["text_kind"], "model": None}
    columns = {
        **{name: records[name] for name in HISTORY.names if name in records.schema.names},
        **{name: scores[name] for name in ("aesthetic", "similarity")},
        **_first_drop(drops),
        **{f"caption{end}": (captions if captioned else texts)[name] for end, name in _CAPTION_COLUMNS},
        **{name: _values(records["key"], words) for name, words in decided.items()},
        "source": source.name,
        "role": str(source.role),
    }
    return _table(columns, len(records)), pc.sum(chosen).as_py() or 0


def _values(keys: pa.ChunkedArray, words: Mapping[str, Decision]) -> pa.Array | None:
    """Returns what was decided of these keys, as text; None: nothing was of any."""
    import pyarrow.compute as pc

    if not words:
        return None
    at = pc.index_in(keys, pa.array(list(words), pa.string())).combine_chunks()
    return pa.array([word.value for word in words.values()], pa.string()).take(at)


_CAPTION_COLUMNS = (("", "caption"), ("_kind", "kind"), ("_model", "model"))

Column = Any
"""An array, or one value for all rows: a string or None."""


def _joined(
    collection: Collection, table: Table, part: str, keys: pa.ChunkedArray, columns: Sequence[str]
) -> dict[str, pa.Array]:
    """Returns columns of a table for these keys, null where it has no row for one; `exists` says where it has.

    Raises:
        UserError: the table has other parts but not this one, or has keys that are not among these.
    """
    import pyarrow.compute as pc

    parts = collection.parts(table)
    if part in parts:
        rows = collection.read(table, part, ["key", *columns])
    elif parts or table is Table.CHOICES:
        raise _outdated(collection, table)
    else:
        rows = SCHEMAS[table].empty_table()
    if rows["key"].equals(keys):  # as in most parts
        exists = pa.array(np.ones(len(rows), dtype=bool))
        return {"exists": exists, **{name: rows[name].combine_chunks() for name in columns}}
    at = pc.index_in(keys, rows["key"].combine_chunks()).combine_chunks()
    if pc.count(at).as_py() != len(rows):
        raise _outdated(collection, table)
    return {"exists": at.is_valid(), **{name: rows[name].combine_chunks().take(at) for name in columns}}


def _first_drop(drops: Sequence[tuple[pa.Array, Table, Column, Column]]) -> dict[str, Column]:
    """Returns stage, reason and detail of the first drop (condition, stage, reason, detail) whose condition holds."""
    import pyarrow.compute as pc

    conditions = pc.make_struct(*(drop[0] for drop in drops), field_names=[str(i) for i in range(len(drops))])
    return {
        "stage": pc.case_when(conditions, *(pa.scalar(str(table)) for _, table, _, _ in drops)),
        "reason": pc.case_when(conditions, *(_value(reason) for _, _, reason, _ in drops)),
        "detail": pc.case_when(conditions, *(_value(detail) for _, _, _, detail in drops)),
    }


def _value(column: Column) -> pa.Array | pa.ChunkedArray | pa.Scalar:
    return pa.scalar(column, pa.string()) if column is None or isinstance(column, str) else column


def _table(columns: dict[str, Column], rows: int) -> pa.Table:
    arrays = []
    for field in HISTORY:
        column = columns[field.name]
        if column is None or isinstance(column, str):
            arrays.append(pa.array([column] * rows, field.type))
        else:
            arrays.append(column.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=HISTORY)


def _outdated(collection: Collection, table: Table) -> UserError:
    verb = {Table.SCORES: "score", Table.CHOICES: "choose", Table.CAPTIONS: "caption"}[table]
    return UserError(f"The {table} of {collection.name} are missing or older than its records; run {verb} again.")
