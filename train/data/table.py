"""A table of images as a training folder: JSON lines, CSV or parquet, one row an image.

    {"file_name": "cats/1.jpg", "text": "a cat on a sofa", "multiply": 0.5}

Files are found from the folder of the table. A row may have, beside file and caption, whatever a control file may say
(train.data.control_files). Rows whose `split` is not train are left out; so dataset.parquet is such a table,
and the metadata.jsonl of an imagefolder data set is another.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.caption.sidecar import read_written
from dreamloom.train.data.control_files import SETTING_KEYS, FolderSettings, make_training_image, parse_settings
from dreamloom.train.data.image import ByteRange, ImageFolder, ImageSettings, TrainingImage

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
FILE_COLUMNS = ("file_name", "file", "path", "image")
"""Columns that may name the image; the first that is there does."""
CAPTION_COLUMNS = ("caption", "text")

Row = dict[str, Any]


def read_image_table(path: Path) -> list[ImageFolder]:
    """The images of a table, as folders, by name.

    A row without a caption has its sidecar's or its name's.

    Raises:
        UserError: the table can't be read, a row names no file, or says what can't be.
    """
    try:
        rows = list(_READERS[path.suffix.lower()](path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as a table ({' '.join(str(error).split())[:200]}); mend it.") from error
    folders: dict[str, list[TrainingImage]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        if row.get("split") not in (None, "", "train"):
            continue
        picture = _picture(row, path, number)
        folders[PurePath(picture.name).parent.as_posix()].append(picture)
    return [_folder(name, pictures) for name, pictures in sorted(folders.items())]


def _folder(name: str, pictures: list[TrainingImage]) -> ImageFolder:
    """Its multiply is that of its first image: mostly, all have the same."""
    ordered = sorted(pictures, key=lambda picture: picture.name)
    return ImageFolder(name, ordered[0].settings.multiply, tuple(ordered))


def _picture(row: Row, table: Path, number: int) -> TrainingImage:
    where = Path(f"{table}, row {number}")
    file = next((row[column] for column in FILE_COLUMNS if row.get(column)), None)
    if not isinstance(file, str):
        raise UserError(f"{where} names no file; give it one of the columns {', '.join(FILE_COLUMNS)}.")
    values = parse_settings({key: row[key] for key in SETTING_KEYS if row.get(key) not in (None, "")}, where)
    caption = next((str(row[column]) for column in CAPTION_COLUMNS if row.get(column) is not None), None)
    path = table.parent / file
    if caption is None:
        picture = make_training_image(path, file, FolderSettings(), read_written(path))
        return replace(picture, settings=replace(picture.settings, **values))
    return TrainingImage(file, ByteRange(path), caption, ImageSettings(**values))


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            yield row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    wanted = {*FILE_COLUMNS, *CAPTION_COLUMNS, *SETTING_KEYS, "split"}
    with pq.ParquetFile(path) as stored:
        columns = [name for name in stored.schema_arrow.names if name in wanted]
        for batch in stored.iter_batches(columns=columns):
            yield from batch.to_pylist()


_READERS = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
