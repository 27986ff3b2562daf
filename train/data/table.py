"""A table of images as a training folder: JSON lines, CSV or parquet, one row per image.

    {"file_name": "cats/1.jpg", "text": "a cat on a sofa", "multiply": 0.5}

File names are relative to the folder of the table. Besides file and caption, a row may hold any setting of a control
file (`dreamloom.train.data.control_files`). Rows whose `split` is not train are left out. So dataset.parquet is such a
table, and so is the metadata.jsonl of an imagefolder dataset.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.caption.sidecar import read_sidecars
from dreamloom.train.data.control_files import SETTING_KEYS, FolderSettings, make_training_image, parse_settings
from dreamloom.train.data.image import ByteRange, ImageFolder, ImageSettings, TrainingImage

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
FILE_COLUMNS = ("file_name", "file", "path", "image")
"""Columns that may name the image; the first that is filled does."""
CAPTION_COLUMNS = ("caption", "text")
"""Columns that may hold the caption; the first that is not null does."""

Row = dict[str, Any]


def read_image_table(path: Path) -> list[ImageFolder]:
    """Reads the images of a table, grouped by folder, in order of name.

    A row without a caption gets that of a sidecar or of the file name.

    Raises:
        UserError: the table can't be read, a row names no file, or a setting is invalid.
    """
    try:
        rows = list(_READERS[path.suffix.lower()](path))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as a table ({' '.join(str(error).split())[:200]}); repair it."
        ) from error
    folders: dict[str, list[TrainingImage]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        if row.get("split") not in (None, "", "train"):
            continue
        image = _image(row, path, number)
        folders[PurePath(image.name).parent.as_posix()].append(image)
    return [_folder(name, images) for name, images in sorted(folders.items())]


def _folder(name: str, images: list[TrainingImage]) -> ImageFolder:
    """A folder with the multiply of its first image: mostly, all have the same."""
    ordered = sorted(images, key=lambda image: image.name)
    return ImageFolder(name, ordered[0].settings.multiply, tuple(ordered))


def _image(row: Row, table: Path, number: int) -> TrainingImage:
    where = Path(f"{table}, row {number}")
    file = next((row[column] for column in FILE_COLUMNS if row.get(column)), None)
    if not isinstance(file, str):
        raise UserError(f"{where} names no file; fill one of the columns {', '.join(FILE_COLUMNS)}.")
    values = parse_settings({key: row[key] for key in SETTING_KEYS if row.get(key) not in (None, "")}, where)
    caption = next((str(row[column]) for column in CAPTION_COLUMNS if row.get(column) is not None), None)
    path = table.parent / file
    if caption is None:
        image = make_training_image(path, file, FolderSettings(), read_sidecars(path))
        return replace(image, settings=replace(image.settings, **values))
    return TrainingImage(file, ByteRange(path), caption, ImageSettings(**values))


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    columns_read = {*FILE_COLUMNS, *CAPTION_COLUMNS, *SETTING_KEYS, "split"}
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name in columns_read]
        for batch in file.iter_batches(columns=columns):
            yield from batch.to_pylist()


_READERS = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
