"""A table of images as a training folder: JSON lines, CSV or parquet, one row per image.

    {"file_name": "cats/1.jpg", "text": "a cat on a sofa", "multiply": 0.5}

File names are relative to the folder of the table. Besides file and caption, a row may hold any setting of a control
file (`dreamloom.train.data.control_files`), main_prompt and tags. A list of captions gives an image several. Rows whose
`split` is not train are left out. So dataset.parquet is such a table, and so is the metadata.jsonl of an imagefolder
dataset.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames, path_key
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import TableRow, caption_texts, read_table
from dreamloom.caption.sidecar import Entries, SidecarContent, parse_entries, parse_sidecars
from dreamloom.train.data.control_files import SETTING_KEYS, FolderSettings, make_training_image, parse_settings
from dreamloom.train.data.image import ImageFolder, TrainingImage
from dreamloom.train.data.notes import Notes

FILE_COLUMNS = ("file_name", "file", "path", "image")
"""Columns that may name the image; the first that is filled does."""
CAPTION_COLUMNS = ("caption", "text", "captions", "prompt", "description")
"""Columns that may hold the caption; the first that is filled does."""

TRAINING_SPLITS = ("", "train", "training")
"""Splits, in lower case, whose rows take part."""


@dataclass(frozen=True)
class ListedImage:
    """What a row says of an image."""

    file: str
    """As it is written; empty: the row names none."""
    entries: Entries
    """Its captions, tags and settings, which are fields of ImageSettings; none of a row of another split."""
    split: str
    """In lower case; empty: the row says none."""

    @property
    def is_for_training(self) -> bool:
        """Whether the row's split is that of training."""
        return self.split in TRAINING_SPLITS

    def merge(self, other: "ListedImage") -> "ListedImage":
        """Adds what another row says of the same image: its captions are further ones."""
        entries = self.entries.inherit(other.entries)
        return replace(self, entries=replace(entries, prompts=(*self.entries.prompts, *other.entries.prompts)))


def read_image_table(path: Path, notes: Notes) -> list[ImageFolder]:
    """Reads the images of a table, grouped by folder, in order of name.

    Rows of one image are several captions of it. One without a caption gets that of a sidecar or of the file name.

    Args:
        path: the table.
        notes: is told of rows of other splits, and of what is odd about sidecars.

    Raises:
        UserError: the table can't be read, a row names no file, or a setting is invalid.
    """
    images: dict[str, ListedImage] = {}
    broken: list[tuple[str, str]] = []
    for row, listed in read_listed_images(path):
        if listed is None:
            broken.append((f"{path.name}, line {row.number}", row.fault))
        elif not listed.is_for_training:
            notes(f"rows of the split {listed.split}, which are left out", f"{path.name}, line {row.number}")
        elif not listed.file:
            raise UserError(
                f"{path}, row {row.number} names no file; fill one of the columns {', '.join(FILE_COLUMNS)}."
            )
        else:
            key = path_key(listed.file)
            images[key] = images[key].merge(listed) if key in images else listed
    folders: dict[str, list[TrainingImage]] = defaultdict(list)
    siblings: dict[Path, FolderNames] = {}
    settings = FolderSettings()
    for listed in images.values():
        file = _find_file(path.parent, listed.file)
        written = SidecarContent() if listed.entries.prompts else _read_sidecars(file, siblings)
        image = make_training_image(file, listed.file, settings, written, notes, listed.entries)
        folders[PurePath(image.name).parent.as_posix()].append(image)
    read = [_folder(name, inside) for name, inside in sorted(folders.items())]
    return [*read, ImageFolder(path.name, settings.image_settings.multiply, (), broken)] if broken else read


def read_listed_images(path: Path) -> Iterator[tuple[TableRow, ListedImage | None]]:
    """Reads the rows of a table, in order; None where a row can't be read: it has a fault.

    Raises:
        UserError: the table can't be read, a setting is invalid, or a caption has several fields.
    """
    columns = {*FILE_COLUMNS, *CAPTION_COLUMNS, *SETTING_KEYS, "split", "main_prompt", "tags"}
    try:
        for row in read_table(path, lambda name: name.lower() in columns):
            yield row, None if row.fault else _listed_image(row, Path(f"{path}, row {row.number}"))
    except (OSError, DocumentError) as error:
        raise UserError(f"{path} can't be read as a table ({error}); repair it.") from error


def _listed_image(row: TableRow, where: Path) -> ListedImage:
    cells: dict[str, Any] = {}
    for name, value in row.cells.items():
        cells.setdefault(name.lower(), value)
    split = str(cells.get("split") or "").strip().lower()
    file = next((cells[column] for column in FILE_COLUMNS if cells.get(column)), None)
    file = file if isinstance(file, str) and "\0" not in file else ""
    if split not in TRAINING_SPLITS:
        return ListedImage(file, Entries(), split)
    given = {key: cells[key] for key in SETTING_KEYS if cells.get(key) is not None and str(cells[key]).strip()}
    settings = parse_settings(given, where)
    try:
        texts = (caption_texts(cells.get(column)) for column in CAPTION_COLUMNS)
        captions = {"caption": next(filter(None, texts), None), "main_prompt": caption_texts(cells.get("main_prompt"))}
        entries = parse_entries({**captions, "tags": cells.get("tags")})
    except DocumentError as error:
        raise UserError(f"{where}: its caption {error}, and copy it into a column caption.") from error
    return ListedImage(file, Entries(entries.prompts, entries.tags, settings), split)


def _folder(name: str, images: list[TrainingImage]) -> ImageFolder:
    """A folder with the multiply of its first image: mostly, all have the same."""
    ordered = sorted(images, key=lambda image: image.name)
    return ImageFolder(name, ordered[0].settings.multiply, tuple(ordered))


def _find_file(folder: Path, name: str) -> Path:
    """Returns the file of a name, which may be Windows' or compose its accents otherwise than the file system."""
    spelt = name.replace("\\", "/")
    names = (name, spelt, unicodedata.normalize("NFC", spelt), unicodedata.normalize("NFD", spelt))
    return next((folder / each for each in names if (folder / each).is_file()), folder / name)


def _read_sidecars(file: Path, siblings: dict[Path, FolderNames]) -> SidecarContent:
    """Reads the sidecars of an image; lists each folder once."""
    folder = file.parent
    if folder not in siblings:
        siblings[folder] = FolderNames(os.listdir(folder) if folder.is_dir() else ())
    return parse_sidecars(str(folder), file.name, siblings=siblings[folder])
