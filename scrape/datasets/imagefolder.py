"""A folder of images with a table beside them: metadata.jsonl, metadata.csv or metadata.parquet.

Each row has a `file_name`, relative to the table, and what else is known of that image.
https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection import CaptionKind, key_of
from dreamloom.scrape.datasets.image_files import ListedFile, file_version, find_files, find_images
from dreamloom.scrape.datasets.metadata import ImageMetadata, metadata_from_row
from dreamloom.scrape.index.columns import match_columns

_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_CAPTION_COLUMNS = ("captions", "prompt", "description")
"""Columns of captions, where none has a name that an index gives it."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, by path, and what its tables know of them."""

    files: list[ListedFile]
    metadata_of: Callable[[ListedFile], ImageMetadata]


def read_imagefolder(
    folder: Path, caption_column: str | None, kind: CaptionKind, left_out: Counter[str] | None = None
) -> ImageFolder:
    """Lists the images in a folder and below, and those that a table names but that do not exist.

    Args:
        folder: the folder.
        caption_column: the column of captions; None: the one with a usual name.
        kind: who wrote the captions; NONE: they are left out.
        left_out: see `find_images`.

    Raises:
        UserError: there is no image, or a table can't be read.
    """
    metadata = {
        path: metadata_from_row(row, kind, caption_column or find_caption_column(row))
        for path, row in _read_tables(folder)
    }
    paths = {path for path, _ in find_images(folder, left_out)} | set(metadata)
    files = []
    for path in sorted(paths, key=lambda path: path.relative_to(folder).parts):
        key = key_of("huggingface", folder.resolve().name, path.relative_to(folder).as_posix())
        row = json.dumps(asdict(metadata[path])) if path in metadata else ""
        files.append(ListedFile(key, path, f"{row} {file_version(path)}"))
    return ImageFolder(files, lambda file: metadata.get(file.path, ImageMetadata()))


def find_caption_column(row: Any) -> str | None:
    """Finds the column of captions by its name; None: there is none, or it has the name of an index's."""
    return None if "text" in match_columns(row) else next((name for name in _CAPTION_COLUMNS if name in row), None)


def _read_tables(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for table in find_files(folder, *_TABLES):
        try:
            for number, row in enumerate(_read_table(table), start=1):
                yield _image_path(table, number, row), row
        except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
            raise UserError(f"{table} can't be read ({error}); correct it, or move it away.") from error


def _read_table(table: Path) -> Iterator[dict[str, Any]]:
    if table.suffix == ".parquet":
        yield from pq.read_table(table, partitioning=None).to_pylist()
        return
    with table.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream) if table.suffix == ".csv" else map(json.loads, filter(str.strip, stream))


def _image_path(table: Path, number: int, row: Any) -> Path:
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{table}, row {number}: has no file_name; write there which image it is about.")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{table}, row {number}: {name!r} leads out of the folder; name an image in it.")
    return table.parent / name
