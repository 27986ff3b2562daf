"""What became of every image of a source: one row a record, with all that the tables say of it."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.base.errors import UserError
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table

UNREADABLE = "unreadable"
"""Why an image is in no table after the one where it could not be decoded any more."""

SURVEY = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # Role
        pa.field("stage", pa.string()),  # the table where the row was dropped; null where it was not
        pa.field("reason", pa.string()),  # a Status, a Choice, or unreadable
        pa.field("detail", pa.string()),
        pa.field("image", pa.string()),  # relative to the collection
        pa.field("bytes", pa.int64()),
        pa.field("caption", pa.string()),
        pa.field("caption_kind", pa.string()),
        pa.field("caption_model", pa.string()),
        *(
            SCHEMAS[Table.RECORDS].field(name)
            for name in ("url", "path", "licence", "licence_url", "author", "sha256", "width", "height")
        ),
        pa.field("aesthetic", pa.float32()),
        pa.field("similarity", pa.float32()),
    ]
)


def survey(source: Source) -> pa.Table:
    """Every record of a source, in order, with where it was dropped and why, or with its caption (SURVEY).

    A source whose images have no captions table goes by the texts they came with.

    Raises:
        UserError: choices are missing, or choices or captions are not those of the records.
    """
    collection = source.collection
    captioned = bool(collection.parts(Table.CAPTIONS))
    parts = [_survey_part(source, part, captioned) for part in collection.parts(Table.RECORDS)]
    if captioned and sum(waiting for _, waiting in parts) != collection.summary(Table.CAPTIONS).rows:
        raise _old(collection, Table.CAPTIONS)
    return pa.concat_tables([rows for rows, _ in parts]) if parts else SURVEY.empty_table()


def _survey_part(source: Source, part: str, captioned: bool) -> tuple[pa.Table, int]:
    """The survey of a part, and how many of its images were chosen."""
    collection = source.collection
    records = collection.read(Table.RECORDS, part)
    ok = pc.equal(records["status"], Status.OK)
    scores = _joined(collection, Table.SCORES, part, records["key"], ["aesthetic", "similarity"])
    scored = scores["there"] if collection.parts(Table.SCORES) else ok
    choices = _joined(collection, Table.CHOICES, part, records["key"], ["choice", "detail"])
    if not choices["there"].equals(pc.and_(ok, scored).combine_chunks()):
        raise _old(collection, Table.CHOICES)
    chosen = pc.fill_null(pc.equal(choices["choice"], Choice.KEPT), False)
    captions = _joined(collection, Table.CAPTIONS, part, records["key"], ["caption", "kind", "model"])
    if captioned and pc.any(pc.and_not(captions["there"], chosen)).as_py():
        raise _old(collection, Table.CAPTIONS)
    fates = [
        (pc.invert(ok), Table.RECORDS, records["status"], records["detail"]),
        (pc.invert(scored), Table.SCORES, UNREADABLE, None),
        (pc.invert(chosen), Table.CHOICES, choices["choice"], choices["detail"]),
        (pc.invert(captions["there"] if captioned else chosen), Table.CAPTIONS, UNREADABLE, None),
    ]
    texts = {"caption": pc.fill_null(records["text"], ""), "kind": records["text_kind"], "model": None}
    columns = {
        **{name: records[name] for name in SURVEY.names if name in records.schema.names},
        **{name: scores[name] for name in ("aesthetic", "similarity")},
        **_first_drop(fates),
        **{f"caption{end}": (captions if captioned else texts)[name] for end, name in _CAPTION_COLUMNS},
        "source": source.name,
        "role": str(source.role),
    }
    return _table(columns, len(records)), pc.sum(chosen).as_py() or 0


_CAPTION_COLUMNS = (("", "caption"), ("_kind", "kind"), ("_model", "model"))

Column = Any
"""An array, or one value for all rows: a string or None."""


def _joined(
    collection: Collection, table: Table, part: str, keys: pa.ChunkedArray, columns: Sequence[str]
) -> dict[str, pa.Array]:
    """Columns of a table for these keys, null where it has no row for one; `there` says where it has.

    Raises:
        UserError: the table has some parts, but not this one, or has keys that these are not.
    """
    parts = collection.parts(table)
    if part in parts:
        rows = collection.read(table, part, ["key", *columns])
    elif parts or table is Table.CHOICES:
        raise _old(collection, table)
    else:
        rows = SCHEMAS[table].empty_table()
    at = pc.index_in(keys, rows["key"].combine_chunks()).combine_chunks()
    if pc.count(at).as_py() != len(rows):
        raise _old(collection, table)
    return {"there": at.is_valid(), **{name: rows[name].combine_chunks().take(at) for name in columns}}


def _first_drop(fates: Sequence[tuple[pa.Array, Table, Column, Column]]) -> dict[str, Column]:
    """Stage, reason and detail of the first fate that is true of each row; null where none is."""
    where = pc.make_struct(*(fate[0] for fate in fates), field_names=[str(i) for i in range(len(fates))])
    return {
        "stage": pc.case_when(where, *(pa.scalar(str(table)) for _, table, _, _ in fates)),
        "reason": pc.case_when(where, *(_value(reason) for _, _, reason, _ in fates)),
        "detail": pc.case_when(where, *(_value(detail) for _, _, _, detail in fates)),
    }


def _value(column: Column) -> pa.Array | pa.ChunkedArray | pa.Scalar:
    return pa.scalar(column, pa.string()) if column is None or isinstance(column, str) else column


def _table(columns: dict[str, Column], rows: int) -> pa.Table:
    made = []
    for field in SURVEY:
        column = columns[field.name]
        if column is None or isinstance(column, str):
            made.append(pa.array([column] * rows, field.type))
        else:
            made.append(column.cast(field.type))
    return pa.Table.from_arrays(made, schema=SURVEY)


def _old(collection: Collection, table: Table) -> UserError:
    verb = {Table.SCORES: "score", Table.CHOICES: "choose", Table.CAPTIONS: "caption"}[table]
    return UserError(f"The {table} of {collection.name} are missing or older than its records; run {verb} again.")
