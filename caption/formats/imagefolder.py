"""Hugging Face's imagefolder: a metadata.jsonl with a line per image of its folder.

    {"file_name": "a man_1.jpg", "text": "a man on a bench"}

https://huggingface.co/docs/datasets/image_dataset#imagefolder. Names are relative to the folder of the metadata.jsonl;
where several name an image, the nearest counts.
"""

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import TableRow, caption_columns, read_table
from dreamloom.caption.formats.rows import ImageFile, Note, Row, UniqueNames, list_images
from dreamloom.caption.formats.target import Target
from dreamloom.scrape.datasets.imagefolder import file_name
from dreamloom.scrape.datasets.metadata import find_caption

METADATA = "metadata.jsonl"


def metadata_files(images: Sequence[ImageFile]) -> list[Path]:
    """Returns the metadata.jsonl files that lie beside images."""
    return sorted({Path(image.folder, METADATA) for image in images if METADATA in image.siblings})


def read_captions(folder: Path, images: Sequence[ImageFile], note: Note) -> Mapping[str, str]:
    """Reads image name → caption from the metadata.jsonl files.

    Raises:
        UserError: there is none, or one is unreadable.
    """
    paths = sorted({*metadata_files(images), *folder.glob(METADATA)}, key=lambda path: len(path.parts))
    if not paths:
        raise UserError(f"{folder} has no {METADATA}; name a folder that Hugging Face's imagefolder can load.")
    names = {_compose(image.name): image.name for image in images}
    captions = {}
    for path in paths:  # a nearer one after one from above
        for row in _rows(path):
            entry = _entry(row)
            if entry is None:
                note("line that can't be read", f"{path}:{row.number}")
                continue
            inside = _compose(os.path.relpath(path.parent / entry[0], folder))
            if inside in names:
                captions[names[inside]] = entry[1]
            else:
                note("entry without an image", f"{path}:{row.number}: {entry[0]}")
    return captions


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Reads images with the captions of the metadata.jsonl in the folder, or in folders below it.

    Raises:
        UserError: there is none, or one is unreadable.
    """
    images = list(list_images(folder))
    captions = read_captions(folder, images, note)
    for image in images:
        yield Row(image.name, captions.get(image.name), image.file)


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Writes images under their own names, and last one metadata.jsonl for all."""
    names, lines = UniqueNames(), []
    for done, row in enumerate(rows, 1):
        name = names.assign(row.name)
        if target.add_image(row, name):
            entry = {**row.metadata, "file_name": name, "text": row.caption}
            lines.append(json.dumps(entry, ensure_ascii=False, default=str))
        yield done
    target.add_text(METADATA, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))


def _compose(name: str) -> str:
    """Composes accents: macOS returns "é" as "e" and an accent, where the table has one letter."""
    return unicodedata.normalize("NFC", name)


def _rows(path: Path) -> Iterator[TableRow]:
    try:
        yield from read_table(path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); change its permissions.") from error


def _entry(row: TableRow) -> tuple[str, str] | None:
    """Returns a row's image and caption, which may be blank; None where it lacks one."""
    name = file_name(row)
    try:
        text = find_caption(row.cells)
    except DocumentError:
        return None
    blank = (row.cells[column] for column in caption_columns(row.cells) if isinstance(row.cells[column], str))
    text = next(blank, None) if text is None else text
    return (name, text) if isinstance(name, str) and "\0" not in name and text is not None else None
