"""Tables of captions name their images; in the new folder they name the new ones.

Whatever text in a metadata.jsonl, a CSV, a parquet file or kohya's JSON is the path of an image that was made, relative
to the table or absolute, is replaced by that of the new image. All else stays as it is.
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.files.folder_names import path_key
from dreamloom.base.tables.documents import DocumentError, decode_text, parse_json
from dreamloom.base.tables.tables import csv_dialect
from dreamloom.base.text import brief

TABLES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Suffixes of the files that may name images."""


@dataclass(frozen=True)
class References:
    """What the images of one folder are called in the new one."""

    place: str
    """The folder of the table, relative to the folder that is compressed: "john", or "."."""
    root: Path
    """The folder that is compressed, absolute."""
    output: Path
    """The new folder, absolute."""
    new_names: Mapping[str, str]
    """path_key of an image, relative to `root` → the name of the new one, relative to `output`."""

    def rewrite(self, suffix: str, data: bytes) -> bytes:
        """Returns a table with the new names; the same bytes, where it names no image.

        Raises:
            DocumentError: it can't be read.
        """
        match suffix:
            case ".json":
                document = parse_json(data)
                renamed = self._renamed(document)
                return data if renamed == document else _encode_json(renamed, indent=2)
            case ".jsonl":
                lines = decode_text(data).split("\n")
                renamed = list(map(self._line, lines))
                return data if renamed == lines else ("\n".join(renamed) + "\n").encode("utf-8", "replace")
            case ".parquet":
                return self._parquet(data)
            case _:
                return self._csv(data, "\t" if suffix == ".tsv" else None)

    def _renamed(self, value: Any) -> Any:
        match value:
            case str():
                return self._new_name(value)
            case list():
                return [self._renamed(each) for each in value]
            case dict():
                return {self._renamed(key): self._renamed(each) for key, each in value.items()}
        return value

    def _line(self, line: str) -> str:
        try:
            row = parse_json(line)
        except DocumentError:
            return line
        renamed = self._renamed(row)
        return line if renamed == row else _encode_json(renamed).decode()

    def _csv(self, data: bytes, delimiter: str | None) -> bytes:
        text, written = decode_text(data), io.StringIO(newline="")
        separator = delimiter or csv_dialect(io.StringIO(text, newline="").readline())[0]
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except csv.Error as error:
            raise DocumentError(brief(error)) from error
        renamed = self._renamed(rows)
        csv.writer(written, delimiter=separator, lineterminator="\n").writerows(renamed)
        return data if renamed == rows else written.getvalue().encode("utf-8", "replace")

    def _parquet(self, data: bytes) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = original = pq.read_table(pa.BufferReader(data))
            for number, column in enumerate(table.schema):
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                    names = pa.array(self._renamed(table[number].to_pylist()), column.type)
                    table = table.set_column(number, column, names)
        except (pa.ArrowException, ValueError) as error:
            raise DocumentError(brief(error)) from error
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return data if table.equals(original) else bytes(sink.getvalue())

    def _new_name(self, text: str) -> str:
        if len(text) > _MAX_PATH or "\0" in text:
            return text
        absolute = os.path.isabs(text)
        inside = os.path.relpath(text, self.root) if absolute else f"{self.place}/{text}"
        name = self.new_names.get(path_key(inside))
        if name is None:
            return text
        return str(self.output / name) if absolute else os.path.relpath(name, self.place)


_MAX_PATH = 4096


def _encode_json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "replace")
