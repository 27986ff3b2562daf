"""LAION's many column spellings: maps the columns of any index to those of a candidate."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.scrape.index.files import LIST_SUFFIXES, IndexFile

ALIASES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "text": ("text", "caption", "top_caption"),  # laion-coco has both: alt text, and BLIP's
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "similarity": (
        "similarity",
        "clip_l14_similarity_score",
        "clip_similarity_vitl14",
        "clip_b32_similarity_score",
        "clip_similarity_vitb32",
    ),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2"),
    "punsafe": ("punsafe", "nsfw_score_opennsfw2", "nsfw_score_gantman", "nsfw"),
    "pwatermark": ("pwatermark", "watermark_score"),
    "language": ("language",),
    "licence": ("license", "licence", "license_type"),
    "md5": ("md5", "md5_hash"),
    "sha256": ("sha256",),
}
"""A candidate's column → its names in LAION, re-LAION, DataComp, COYO, PD12M and laion-coco, in any case. The first
that an index has is taken."""


_V2 = ("aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2")
"""Columns of aesthetic scores that are certainly V2's; `aesthetic` may be V1's or V2's."""

_NSFW = {"UNLIKELY": 0.0, "UNSURE": 0.5, "NSFW": 1.0}
"""The tags of LAION-400M and raw LAION-5B, as probabilities."""


def _is_list(data_type: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(is_kind(data_type) for is_kind in kinds)


def _is_text(data_type: pa.DataType) -> bool:
    """Whether it is one of text, or of bytes, in any of Arrow's forms."""
    if isinstance(data_type, pa.BaseExtensionType):
        data_type = data_type.storage_type
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{kind}")(data_type) for kind in kinds)


def _item_type(data_type: pa.DataType) -> pa.DataType:
    """Returns the type of what is in a list, also of lists; or the type itself."""
    while _is_list(data_type):
        data_type = data_type.value_type
    return data_type


_LARGEST = {"FLOAT": "3.4028234663852886e38::FLOAT", "DOUBLE": "1.7976931348623157e308::DOUBLE"}


@dataclass(frozen=True)
class Column:
    """A column of an index, and the SQL that reads it."""

    name: str
    type: pa.DataType
    field: tuple[str, ...] = ()
    """The field of the column that is read, and the field of that; none: the column itself."""

    @property
    def text_sql(self) -> str:
        """SQL of its values as text; of a list the first that is not blank."""
        if _is_list(self.type):
            texts, item = self._quoted, self.type.value_type
            while _is_list(item):
                texts, item = f"flatten({texts})", item.value_type
            return f"[x::VARCHAR FOR x IN {texts} IF trim(x::VARCHAR) <> ''][1]"
        return f"CAST({self._quoted} AS VARCHAR)"

    @property
    def caption_sql(self) -> str:
        """SQL of its values as captions: numbers, dates and the like are none."""
        return self.text_sql if _is_text(_item_type(self.type)) else "CAST(NULL AS VARCHAR)"

    @property
    def number_sql(self) -> str:
        """SQL of its values as numbers; null where there is none that is finite."""
        if pa.types.is_integer(self.type):
            return self._quoted
        number, largest = self._float
        return f"CASE WHEN NOT isnan({number}) AND {number} BETWEEN -{largest} AND {largest} THEN {number} END"

    def comparison_sql(self, operator: str, limit: float) -> str:
        """Returns SQL that compares its number with a limit (>= or <), in the column's precision; false if not finite.

        The column itself stands in the comparisons, so that DuckDB can skip row groups, and comparisons that always
        hold, by their statistics. These know infinity, but no NaN, which is above all numbers.
        """
        if pa.types.is_integer(self.type):
            return f"{self._quoted} {operator} {limit!r}"
        number, largest = self._float
        finite = f"<= {largest}" if operator == ">=" else f">= -{largest}"
        sql_type = largest[largest.index("::") :]
        return f"({number} {operator} {limit!r}{sql_type} AND NOT isnan({number}) AND {number} {finite})"

    @property
    def _float(self) -> tuple[str, str]:
        """SQL of its values as floating-point numbers, and of the largest finite one of their type."""
        if not pa.types.is_floating(self.type):
            return self._parsed, _LARGEST["DOUBLE"]
        return self._quoted, _LARGEST["DOUBLE" if pa.types.is_float64(self.type) else "FLOAT"]

    @property
    def aesthetic_scale(self) -> str | None:
        """Of a column of aesthetic scores: "v2"; None: its name does not tell."""
        return "v2" if self.name.lower() in _V2 else None

    @property
    def _parsed(self) -> str:
        """SQL of the numbers that its texts spell."""
        if self.name.lower() != "nsfw":
            return f"TRY_CAST({self._quoted} AS DOUBLE)"
        tags = " ".join(f"WHEN '{tag}' THEN {number}::DOUBLE" for tag, number in _NSFW.items())
        return f"CASE upper({self._quoted}) {tags} END"

    @property
    def _quoted(self) -> str:
        return ".".join('"' + name.replace('"', '""') + '"' for name in (self.name, *self.field))


@dataclass(frozen=True)
class Index:
    """Consecutive files that spell their columns in the same way."""

    files: tuple[IndexFile, ...]
    columns: dict[str, Column]
    """A candidate's column → the index's, where it has one."""
    rows: int
    row_groups: int

    @property
    def unread(self) -> dict[str, int]:
        """Reason → rows of the files that could not be read, and are not among `rows`."""
        return dict(sum((Counter(file.dropped) for file in self.files), Counter()))


def match_columns(names: Iterable[str]) -> dict[str, str]:
    """Returns a candidate's column → which of these names it has; columns without a match are left out."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    matches = {
        column: next((by_lower[alias] for alias in aliases if alias in by_lower), None)
        for column, aliases in ALIASES.items()
    }
    return {column: name for column, name in matches.items() if name is not None}


def read_indexes(
    files: Iterable[IndexFile],
    url_column: str | None = None,
    text_column: str | None = None,
    aesthetic_scale: str | None = None,
) -> list[Index]:
    """Reads the footers of parquet files, in order.

    Args:
        files: the files.
        url_column: the column of addresses; None: the first of the usual names that a file has.
        text_column: the column of captions, or a field of one ("caption.en"); None: as with addresses.
        aesthetic_scale: "v1" or "v2": of several columns of aesthetic scores, the one of this scale is taken.

    Raises:
        UserError: a file is not parquet, has no column of URLs or not the one of captions, or it is one of fields.
    """
    with ThreadPoolExecutor(8) as pool:  # remote files answer late
        footers = list(
            pool.map(lambda file: (file, *_read_footer(file, url_column, text_column, aesthetic_scale)), files)
        )
    return list(_group(footers))


def _read_footer(
    file: IndexFile, url_column: str | None, text_column: str | None, aesthetic_scale: str | None
) -> tuple[dict[str, Column], pq.FileMetaData]:
    """Returns the columns, by the candidate's names, and the footer."""
    try:
        metadata = file.metadata()
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last for names that are damaged
        lists = (
            "" if str(file).lower().endswith(".parquet") else f" Lists of addresses end in {', '.join(LIST_SUFFIXES)}."
        )
        why = _first_line(error)
        raise UserError(f"{file} can't be read as parquet ({why}); remove it from `index`.{lists}") from error
    names = match_columns(schema.names)
    if aesthetic_scale == "v2":
        names["aesthetic"] = next((name for name in schema.names if name.lower() in _V2), names.get("aesthetic", ""))
    columns = {column: Column(name, schema.field(name).type) for column, name in names.items() if name}
    columns = {n: c for n, c in columns.items() if n in ("url", "text") or not pa.types.is_nested(c.type)}
    for column, asked in (("url", url_column), ("text", text_column)):
        if asked is not None:
            columns.pop(column, None)
            if found := _find_column(schema, asked):
                columns[column] = found
        if column not in columns and (asked is not None or column == "url"):
            raise UserError(
                f"{file} has no column named {asked or 'url'} (it has {', '.join(schema.names) or 'none'}); name a "
                f"LAION-style index, or its columns: url_column, text_column."
            )
        if column in columns:
            _refuse_fields_in_lists(file, columns[column])
        if column in columns and pa.types.is_struct(columns[column].type):
            fields = [field.name for field in columns[column].type]
            raise UserError(
                f"{file}: the column {columns[column].name} holds the fields {', '.join(fields)}; name one of them: "
                f"{column}_column: {'.'.join([columns[column].name, *columns[column].field, *fields[:1]])}."
            )
    return columns, metadata


def _refuse_fields_in_lists(file: IndexFile, column: Column) -> None:
    """Raises UserError where a column holds lists of fields, or maps, which are no texts."""
    item = _item_type(column.type)
    if pa.types.is_map(item) or (pa.types.is_struct(item) and item != column.type):
        what = "maps" if pa.types.is_map(item) else "lists of fields"
        raise UserError(f"{file}: the column {column.name} holds {what}; make a column of texts of it, and name that.")


def _find_column(schema: pa.Schema, asked: str) -> Column | None:
    """Returns a column by its name in any case, or a field of one ("caption.en"); None: there is none."""
    for name in schema.names:
        if name.lower() == asked.lower():
            return Column(name, schema.field(name).type)
    outer, *path = asked.split(".")
    column = next((Column(n, schema.field(n).type) for n in schema.names if n.lower() == outer.lower()), None)
    for name in path:
        fields = list(column.type) if column is not None and pa.types.is_struct(column.type) else []
        inner = next((field for field in fields if field.name.lower() == name.lower()), None)
        column = Column(column.name, inner.type, (*column.field, inner.name)) if column and inner else None
    return column


def _group(footers: list[tuple[IndexFile, dict[str, Column], pq.FileMetaData]]) -> Iterator[Index]:
    """Joins consecutive files of the same columns, on the same kind of file system."""

    def layout(footer: tuple[IndexFile, dict[str, Column], pq.FileMetaData]) -> tuple[bool, list[tuple[str, str, str]]]:
        file, columns, _ = footer
        return file.filesystem is None, sorted(
            (name, c.name + repr(c.field), str(c.type)) for name, c in columns.items()
        )

    for _, group in groupby(footers, key=layout):
        files, columns, metadata = zip(*group, strict=True)
        yield Index(files, columns[0], sum(m.num_rows for m in metadata), sum(m.num_row_groups for m in metadata))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
