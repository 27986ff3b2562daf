"""A folder of images with a table beside them: metadata.jsonl, metadata.csv or metadata.parquet.

Each row says `file_name`, relative to the table, and what else is known of that image.
https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection import CaptionKind, key_of
from dreamloom.scrape.datasets.ingest import ListedFile, file_version, find_images
from dreamloom.scrape.datasets.metadata import ImageMetadata, metadata_from_row
from dreamloom.scrape.index.columns import match_columns

_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_TEXTS = ("captions", "prompt", "description")
"""Columns of captions where none has a name that an index gives it."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, by path, and what the tables say of them."""

    listed: list[ListedFile]
    facts: Callable[[ListedFile], ImageMetadata]


def read_imagefolder(folder: Path, text: str | None, kind: CaptionKind) -> ImageFolder:
    """The images below a folder, and those that a table names and that are not there.

    Args:
        text: the column of captions; None: that of a usual name.
        kind: who wrote the captions; NONE: they are left out.

    Raises:
        UserError: there is no image, or a table can't be read.
    """
    known = {path: metadata_from_row(row, kind, text or find_caption_column(row)) for path, row in _rows(folder)}
    paths = {path for path, _ in find_images(folder)} | set(known)
    listed = []
    for path in sorted(paths, key=lambda path: path.relative_to(folder).parts):
        key = key_of("huggingface", folder.resolve().name, path.relative_to(folder).as_posix())
        listed.append(ListedFile(key, path, f"{known.get(path)} {file_version(path)}"))
    return ImageFolder(listed, lambda one: known.get(one.path, ImageMetadata()))


def find_caption_column(row: Any) -> str | None:
    """The column of captions by its name; None: none is called so, or as in an index."""
    return None if "text" in match_columns(row) else next((name for name in _TEXTS if name in row), None)


def _rows(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for table in sorted(path for name in _TABLES for path in folder.rglob(name)):
        try:
            for number, row in enumerate(_read(table), start=1):
                yield _named(table, number, row), row
        except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
            raise UserError(f"{table} can't be read ({error}); mend it, or take it away.") from error


def _read(table: Path) -> Iterator[dict[str, Any]]:
    if table.suffix == ".parquet":
        yield from pq.read_table(table, partitioning=None).to_pylist()
        return
    with table.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream) if table.suffix == ".csv" else map(json.loads, filter(str.strip, stream))


def _named(table: Path, number: int, row: Any) -> Path:
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{table}, row {number}: has no file_name; write there which image it is about.")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{table}, row {number}: {name!r} leads out of the folder; name an image in it.")
    return table.parent / name
