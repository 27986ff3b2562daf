"""Hugging Face's imagefolder: a metadata.jsonl with a line for each image of its folder.

    {"file_name": "a man_1.jpg", "text": "a man on a bench"}

https://huggingface.co/docs/datasets/image_dataset#imagefolder. Names are relative to the folder of the metadata.jsonl;
where several know an image, the nearest has it.
"""

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.caption.formats.rows import Names, Note, Picture, Row, pictures
from dreamloom.caption.formats.target import Target
from dreamloom.scrape.datasets.imagefolder import find_caption_column
from dreamloom.scrape.index.columns import match_columns

METADATA = "metadata.jsonl"


def metadata_of(found: Sequence[Picture]) -> list[Path]:
    """The metadata.jsonl of a folder's images, and of the folders in which they lie."""
    return sorted({Path(p.folder, METADATA) for p in found if METADATA in p.beside})


def captions_of(folder: Path, found: Sequence[Picture], note: Note) -> Mapping[str, str]:
    """Picture's name → caption, of those that a metadata.jsonl knows.

    Raises:
        UserError: there is none, or one can't be read.
    """
    paths = sorted({*metadata_of(found), *folder.glob(METADATA)}, key=lambda path: len(path.parts))
    if not paths:
        raise UserError(f"{folder} has no {METADATA}; name a folder that Hugging Face's imagefolder can load.")
    names = {_composed(picture.name): picture.name for picture in found}
    captions = {}
    for path in paths:  # a nearer one after one from above
        for number, line in enumerate(_lines(path), 1):
            entry = _entry(line)
            if entry is None:
                note("line that can't be read", f"{path}:{number}")
                continue
            inside = _composed(os.path.relpath(path.parent / entry[0], folder))
            if inside in names:
                captions[names[inside]] = entry[1]
            else:
                note("entry without an picture", f"{path}:{number}: {entry[0]}")
    return captions


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Pictures with the captions of the metadata.jsonl in the folder, or in folders below it.

    Raises:
        UserError: there is none, or one can't be read.
    """
    found = list(pictures(folder))
    captions = captions_of(folder, found, note)
    for picture in found:
        yield Row(picture.name, captions.get(picture.name), picture.file)


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Pictures under their own names, and last one metadata.jsonl for all."""
    names, lines = Names(), []
    for done, row in enumerate(rows, 1):
        name = names.name(row.name)
        if target.picture(row, name):
            said = {**row.facts, "file_name": name, "text": row.caption}
            lines.append(json.dumps(said, ensure_ascii=False, default=str))
        yield done
    target.text(METADATA, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))


def _composed(name: str) -> str:
    """macOS hands over "é" as "e" and an accent, where the table has one letter."""
    return unicodedata.normalize("NFC", name)


def _lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); change its permissions.") from error
    return lines[:-1] if lines and not lines[-1].strip() else lines


def _entry(line: bytes) -> tuple[str, str] | None:
    """A line's image and caption; None where it has not both."""
    try:
        entry: Any = json.loads(line)
        name, text = entry["file_name"], entry[find_caption_column(entry) or match_columns(entry)["text"]]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return (name, text) if isinstance(name, str) and "\0" not in name and isinstance(text, str) else None
