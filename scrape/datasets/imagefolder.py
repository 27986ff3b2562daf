"""A folder of images with a table beside them: metadata.jsonl, metadata.csv or metadata.parquet.

Each row has a `file_name`, relative to the table, and what else is known of that image.
https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import TableRow, read_table
from dreamloom.scrape.collection import key_of
from dreamloom.scrape.datasets.image_files import ListedFile, NamedFiles, find_files, find_images, leads_out
from dreamloom.scrape.datasets.metadata import CaptionRules, ImageMetadata, metadata_from_row
from dreamloom.scrape.datasets.source_recipes import file_version

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The names of tables that say what images are about."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, by path, and what its tables know of them."""

    files: list[ListedFile]
    metadata_of: Callable[[ListedFile], ImageMetadata]


def read_imagefolder(
    folder: Path,
    captions: CaptionRules,
    left_out: Counter[str] | None = None,
    follow_links: bool = False,
) -> ImageFolder:
    """Lists the images in a folder and below, and those that a table names but that do not exist.

    Args:
        folder: the folder.
        captions: which captions are taken.
        left_out: see `find_images`.
        follow_links: see `find_images`.

    Raises:
        UserError: there is no image, or a table can't be read.
    """
    files_of = NamedFiles(folder)
    metadata: dict[Path, ImageMetadata] = {}
    for table, path, row in _read_tables(folder):
        found = files_of.find(path.relative_to(folder).as_posix())
        if found not in metadata or not metadata[found].text:  # of several captions, the first
            metadata[found] = _metadata(table, row, captions)
    paths = {path for path, _ in find_images(folder, left_out, follow_links)} | set(metadata)
    files = []
    for path in sorted(paths, key=lambda path: path.relative_to(folder).parts):
        key = key_of("huggingface", folder.resolve().name, path.relative_to(folder).as_posix())
        known = json.dumps(asdict(metadata[path])) if path in metadata else ""
        files.append(ListedFile(key, path, file_version(path, before=f"{known} ")))
    return ImageFolder(files, lambda file: metadata.get(file.path, ImageMetadata()))


def unread_tables(folder: Path) -> str | None:
    """Returns a sentence about tables that may hold captions, where none of TABLES is there; None: all is read."""
    if find_files(folder, *TABLES):
        return None
    others = find_files(folder, "*.csv", "*.tsv", "*.jsonl", "metadata.*", "captions.*", "labels.*")
    if not others:
        return None
    names = ", ".join(path.relative_to(folder).as_posix() for path in others[:3])
    return (
        f"{folder} has none of {', '.join(TABLES)}, so its images have no captions. There is {names}; if that has the "
        "captions, name it so, with a column file_name."
    )


def _read_tables(folder: Path) -> Iterator[tuple[Path, Path, TableRow]]:
    """Yields each table's path, and of its rows the image and what is known of it; logs which rows have none.

    Raises:
        UserError: a table can't be read, or none of its rows.
    """
    for table in find_files(folder, *TABLES):
        faults: list[str] = []
        found = False
        try:
            for row in read_table(table):
                if fault := row_fault(row):
                    faults.append(f"row {row.number}: {fault}")
                else:
                    found = True
                    yield table, table.parent / file_name(row), row
        except (OSError, DocumentError) as error:
            raise UserError(f"{table} can't be read ({error}); correct it, or move it away.") from error
        if faults and not found:
            raise UserError(f"{table}, {faults[0]}")
        if faults:
            _log.warning("%s: %d rows are left out; the first, %s", table, len(faults), faults[0])


def file_name(row: TableRow) -> Any:
    """Returns what a row of a table has as `file_name`, in any case; None: nothing."""
    return next((value for name, value in row.cells.items() if name.lower() == "file_name"), None)


def row_fault(row: TableRow) -> str:
    """Returns why a row of a table names no image; empty if it does."""
    name = file_name(row)
    if row.fault:
        return f"can't be read ({row.fault}); correct it."
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return "has no file_name; write there which image it is about."
    if leads_out(name):
        return f"{name!r} leads out of the folder; name an image in it."
    return ""


def _metadata(table: Path, row: TableRow, captions: CaptionRules) -> ImageMetadata:
    try:
        return metadata_from_row(row.cells, captions)
    except DocumentError as error:
        raise UserError(f"{table}, row {row.number}: {error} as caption_column.") from error
