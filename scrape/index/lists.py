"""Lists of addresses (.csv, .tsv, .txt, .jsonl, .json) as an index: each becomes a temporary parquet file of texts.

A row that can't be read costs itself; the file counts them by reason.
"""

import codecs
import csv
import io
import itertools
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import temporary_name
from dreamloom.base.tables.documents import MAX_BYTES, MAX_DOCUMENT_BYTES, DocumentError, parse_json, refuse_other_kinds
from dreamloom.base.tables.tables import NULLS, caption_texts, cell, csv_dialect, field_names, refuse_repeated
from dreamloom.base.text import brief, is_utf8, without_surrogates
from dreamloom.scrape.index.bad_text import NOT_UTF8, tell_bad_text
from dreamloom.scrape.index.columns import ALIASES
from dreamloom.scrape.index.files import IndexFile

_ROWS = 10_000
"""Rows in memory at once; the columns of JSON lines are those of the first so many."""


def as_parquet(file: IndexFile, folder: Path, text_column: str | None = None) -> IndexFile:
    """Returns the parquet file of a list of addresses; one that is no list as it is.

    Args:
        file: a file of an index.
        folder: where temporary files are written.
        text_column: the column of captions; it may be a field of one ("caption.en").

    Raises:
        UserError: it can't be read.
    """
    if not file.is_list:
        return file
    path = folder / temporary_name(".parquet")
    faults: Counter[str] = Counter()
    try:
        with file.open() as stream:
            _write(_rows(_decoded(stream), file.suffix, faults), path, text_column)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or brief(error)
        raise UserError(f"{file} can't be read ({why}); change its permissions, or leave it out.") from error
    except DocumentError as error:
        raise UserError(f"{file}: {error}.") from error
    tell_bad_text(file, faults[NOT_UTF8])
    return replace(file, name=str(path), filesystem=None, listed_as=file.name, dropped=dict(faults))


def _write(rows: Iterator[Mapping[str, Any]], path: Path, text_column: str | None) -> None:
    first = list(itertools.islice(rows, _ROWS))
    names = list(dict.fromkeys(name for row in first for name in row)) or ["url"]
    if text_column and text_column not in names and (outer := text_column.partition(".")[0]) in names:
        names[names.index(outer)] = text_column
    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        while first:
            columns = {name: pa.array([_text(row, name) for row in first], pa.string()) for name in names}
            writer.write_table(pa.table(columns, schema=schema))
            first = list(itertools.islice(rows, _ROWS))


def _text(row: Mapping[str, Any], name: str) -> str | None:
    """Returns a cell as text; of a list the first text."""
    value = cell(row, name)
    if fields := field_names(value):
        if name.lower() in ALIASES["text"]:
            holds = f"{name} holds the fields {', '.join(fields)}"
            raise DocumentError(f"{holds}; name one of them, such as {name}.{fields[0]}, as text_column")
        return None
    if isinstance(value, list):
        return next(iter(caption_texts(value)), None)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, str) else str(value)


# Reading


def _decoded(stream: Any) -> TextIO:
    """Decodes as UTF-8, or as marks and zeros at the beginning say. Bytes that are none become surrogates."""
    buffered = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
    begin = buffered.read(8)
    buffered.seek(0)
    refuse_other_kinds(begin)
    return io.TextIOWrapper(buffered, encoding=_encoding(begin), errors="surrogateescape", newline="")


def _encoding(begin: bytes) -> str:
    for encoding, marks in _MARKS.items():
        if begin.startswith(marks):
            return encoding
    if len(begin) >= 4 and begin[1] == begin[3] == 0:  # of Latin letters, one byte is zero
        return "utf-16-le"
    return "utf-16-be" if len(begin) >= 4 and begin[0] == begin[2] == 0 else "utf-8-sig"


_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # the first begins like UTF-16's
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def _rows(text: TextIO, suffix: str, faults: Counter[str]) -> Iterator[Mapping[str, Any]]:
    by_suffix = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".txt": _addresses}
    rows = by_suffix.get(suffix)
    for cells in _cells(text, suffix, faults) if rows is None else rows(text, faults):
        row = {without_surrogates(name): value for name, value in cells.items()}
        if any(isinstance(value, str) and not is_utf8(value) for value in row.values()):
            faults[NOT_UTF8] += 1
        else:
            yield row


def _lines(text: TextIO, faults: Counter[str]) -> Iterator[str]:
    """Yields the lines that are not blank; one of more than MAX_BYTES characters is left out."""
    while line := text.readline(MAX_BYTES):
        if len(line) < MAX_BYTES or line.endswith("\n"):
            if line.strip():
                yield line.strip()
            continue
        faults["too_long"] += 1
        while line and not line.endswith("\n"):
            line = text.readline(MAX_BYTES)


def _addresses(text: TextIO, faults: Counter[str]) -> Iterator[Mapping[str, Any]]:
    return ({"url": line} for line in _lines(text, faults))


def _json(text: TextIO, faults: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Reads a list of objects; or an object a line, as which people save it, too."""
    begin = next((char for char in iter(lambda: text.read(1), "") if not char.isspace()), "")
    text.seek(0)
    if begin != "[":
        yield from _json_lines(text, faults)
        return
    content = text.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"it is longer than {MAX_DOCUMENT_BYTES:,} characters; save it as JSON lines (.jsonl)")
    for row in parse_json(content, of_many=True):
        if isinstance(row, dict):
            yield row
        else:
            faults["broken_row"] += 1


def _json_lines(text: TextIO, faults: Counter[str]) -> Iterator[Mapping[str, Any]]:
    for line in _lines(text, faults):
        try:
            row = parse_json(line)
        except DocumentError:
            row = None
        if isinstance(row, dict):
            yield row
        else:
            faults["broken_row"] += 1


def _cells(text: TextIO, suffix: str, faults: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Reads cells; without a header, the first cell with an address is the url, and the first other one the text."""
    begin = text.readline(MAX_BYTES)
    delimiter, is_header = csv_dialect(begin)
    if not is_header:
        begin = text.readline(MAX_BYTES)
    elif suffix == ".tsv":
        delimiter = "\t"
    lines = itertools.chain([begin], iter(lambda: text.readline(MAX_BYTES), ""))
    headless = "://" in begin
    raw = headless and delimiter == "\t"  # as Conceptual Captions has it, with quotes that belong to the text
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if raw else csv.QUOTE_MINIMAL)
    header: list[str] = []
    while True:
        try:
            row = next(reader, None)
        except csv.Error:  # a cell of more than 128 KiB
            faults["broken_row"] += 1
            continue
        if row is None:
            return
        if not row:
            continue
        if not header:
            header = _headless_names(row) if headless else [name.strip() for name in row]
            refuse_repeated(header)
            if not headless:
                continue
        if len(row) > len(header):
            faults["broken_row"] += 1
        else:
            yield {n: None if c in NULLS or not c else c for n, c in zip(header, row, strict=False)}


def _headless_names(row: list[str]) -> list[str]:
    url = next(place for place, value in enumerate(row) if "://" in value)
    text = next((place for place in range(len(row)) if place != url), None)
    return ["url" if n == url else "text" if n == text else f"column {n + 1}" for n in range(len(row))]
