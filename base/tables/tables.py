"""Reads and writes tables of images: JSON lines, CSV or parquet, a row for each image, and the captions in them.

A row that is not as its header says is left out and told with its line; the others are read.
"""

import ast
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamloom.base.files.atomic import commit
from dreamloom.base.tables.documents import (
    MAX_BYTES,
    DocumentError,
    RepeatedKeyError,
    decode_text,
    parse_json,
    read_document,
)
from dreamloom.base.text import brief, shows_nothing, without_surrogates

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")

Wanted = Callable[[str], bool]
"""Tells whether a column is needed, by its name without blanks around it."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table."""

    number: int
    """Its line in a text file, its place in a parquet file; from 1."""
    cells: Mapping[str, Any]
    """Column, without blanks around its name → value; null and NaN are None."""
    fault: str = ""
    """Why it can't be read, in one word; empty: it can."""


def read_table(path: Path, wanted: Wanted = lambda _: True) -> Iterator[TableRow]:
    """Reads the rows of a table, in order; also those that can't be read, with their fault.

    Args:
        path: the table; its suffix, in any case, is one of TABLE_SUFFIXES.
        wanted: columns of a parquet file that are not wanted are not read.

    Raises:
        OSError: it can't be read.
        DocumentError: it is no table.
    """
    suffix = path.suffix.lower()
    yield from _parquet(path, wanted) if suffix == ".parquet" else parse_table(suffix, read_document(path))


def parse_table(suffix: str, data: bytes) -> Iterator[TableRow]:
    """Reads the rows of a table from its bytes; see `read_table`.

    Raises:
        DocumentError: it is no table.
    """
    match suffix.lower():
        case ".parquet":
            yield from _parquet(io.BytesIO(data), lambda _: True)
        case ".csv":
            yield from _csv(decode_text(data))
        case _:
            yield from _json_lines(decode_text(data))


def _json_lines(text: str) -> Iterator[TableRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line) if len(line) <= MAX_BYTES else None
        except DocumentError as error:
            yield TableRow(number, {}, "repeated_key" if isinstance(error, RepeatedKeyError) else "not_json")
            continue
        if isinstance(row, dict):
            yield TableRow(number, {key.strip(): _no_nan(value) for key, value in row.items()})
        else:
            yield TableRow(number, {}, "too_long" if len(line) > MAX_BYTES else "not_an_object")


def _csv(text: str) -> Iterator[TableRow]:
    lines = io.StringIO(text, newline="")  # which end as those of any system
    delimiter, is_header = csv_dialect(lines.readline())
    if is_header:
        lines.seek(0)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        number = reader.line_num + (1 if is_header else 2)
        try:
            cells = next(reader, None)
        except csv.Error:  # a quote in the wrong place, or a cell of more than 128 KiB
            yield TableRow(number, {}, "broken_row")
            continue
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = [name.strip() for name in cells]
            refuse_repeated(header)
        elif len(cells) > len(header):
            yield TableRow(number, {}, "unquoted_comma")
        else:
            yield TableRow(number, {n: None if c in NULLS else c for n, c in zip(header, cells, strict=False)})


def csv_dialect(first_line: str) -> tuple[str, bool]:
    """Returns the delimiter that a CSV's first line tells, and whether it is the header; Excel's "sep=;" is none."""
    if match := re.fullmatch(r'"?sep=(.)"?\s*', first_line, re.IGNORECASE):
        return match[1], False
    usual = max(",;\t", key=first_line.count)
    return usual if usual in first_line or "|" not in first_line else "|", True


def refuse_repeated(header: Sequence[str]) -> None:
    """Raises DocumentError where a header names a column twice, of which one would count by chance."""
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise DocumentError(f"its header names the column {brief(twice[0])} twice; rename one of them")


NULLS = frozenset({"nan", "NaN", "-nan", "null", "NULL", "None", "<NA>", "#N/A", "N/A", "n/a"})
"""Cells that pandas and spreadsheets write for what is not there."""


def _parquet(path: Path | io.BytesIO, wanted: Wanted) -> Iterator[TableRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if wanted(name.strip())]
            refuse_repeated([name.strip() for name in columns])
            number = 0
            for batch in file.iter_batches(columns=columns):
                for row in _rows(batch):
                    number += 1
                    cells = {name.strip(): _no_nan(value) for name, value in (row or {}).items()}
                    yield TableRow(number, cells, "broken_row" if row is None else "")
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for names that are damaged
        raise DocumentError(brief(error)) from error


def _rows(batch: Any) -> list[dict[str, Any] | None]:
    """Returns the rows of an Arrow batch; None for one that can't be read, such as text that is no UTF-8."""
    try:
        return list(batch.to_pylist(maps_as_pydicts="lossy"))  # else a map is a list of pairs, as captions are
    except (ValueError, OverflowError):
        return (
            _rows(batch.slice(0, len(batch) // 2)) + _rows(batch.slice(len(batch) // 2)) if len(batch) > 1 else [None]
        )


def _no_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


# Writing


def write_table(path: Path, rows: "pa.Table") -> None:
    """Writes a table of texts and numbers, atomically, in the format of its suffix, one of TABLE_SUFFIXES."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    with commit(path) as temporary:
        match path.suffix.lower():
            case ".parquet":
                pq.write_table(rows, temporary)
            case ".csv":
                pyarrow.csv.write_csv(rows, temporary)
            case _:
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist())
                temporary.write_text("".join(lines), encoding="utf-8")


# Cells


def caption_texts(value: Any) -> list[str]:
    """Returns the captions in a cell: a text, or those of a list. Null, NaN, blank texts and numbers are none.

    Raises:
        DocumentError: it holds fields, of which one has to be named.
    """
    if isinstance(value, Mapping) and value:
        raise DocumentError(f"holds the fields {', '.join(map(str, value))}; name one of them")
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):  # a map of Arrow
        return caption_texts(dict(value))
    if isinstance(value, list | tuple):
        return [text for each in value for text in caption_texts(each)]
    if isinstance(value, bytes):
        value = decode_text(value)
    if isinstance(value, str) and (texts := written_list(value)) is not None:
        return [text for each in texts for text in caption_texts(each)]
    return [without_surrogates(value)] if isinstance(value, str) and not shows_nothing(value) else []


CAPTION_COLUMNS = ("text", "caption", "top_caption", "captions", "prompt", "description", "txt")
"""Columns that may hold captions, in lower case; the first that is filled does."""


def caption_columns(names: Iterable[str]) -> list[str]:
    """Returns those of these columns that may hold captions, by precedence."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    return [by_lower[alias] for alias in CAPTION_COLUMNS if alias in by_lower]


def captions_in_row(row: Mapping[str, Any], column: str | None = None) -> list[str]:
    """Returns the captions in the first column of a row that has some.

    Args:
        row: column → value.
        column: their column, or a field of one ("caption.en"); None: those of CAPTION_COLUMNS, in any case.

    Raises:
        DocumentError: the column holds fields, of which one has to be named.
    """
    for name in caption_columns(row) if column is None else [column]:
        value = cell(row, name)
        try:
            texts = caption_texts(value)
        except DocumentError as error:
            raise DocumentError(f"the column {name} {error}, such as {name}.{field_names(value)[0]}") from error
        if texts:
            return texts
    return []


def written_list(text: str) -> list[str] | None:
    """Returns the texts of a list that was written as a text, such as "['a cat', 'a dog']"; None: it is no list."""
    if not re.match(r"""\[\s*['"]""", text):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def cell(row: Mapping[str, Any], column: str) -> Any:
    """Returns the value in a column, or in a field of it ("caption.en"); None: the row has none."""
    if column in row:
        return row[column]
    outer, dot, field = column.partition(".")
    inner = row.get(outer) if dot else None
    if isinstance(inner, list):
        return [cell(each, field) for each in inner if isinstance(each, Mapping)]
    return cell(inner, field) if isinstance(inner, Mapping) else None


def field_names(value: Any) -> list[str]:
    """Returns the fields of a cell, or of what is in its list; none: it has no fields."""
    if isinstance(value, list | tuple):
        return next(filter(None, map(field_names, value)), [])
    return [str(name) for name in value] if isinstance(value, Mapping) else []
