"""A caption in a file beside its image: .txt, .caption, or EveryDream 2's .yaml; see dreamloom.caption.sidecar."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamloom.caption.filename import CONTROLS
from dreamloom.caption.formats.rows import Names, Note, Row, look_at, pictures
from dreamloom.caption.formats.target import SKIPPED, Target
from dreamloom.caption.sidecar import caption_of, encode_text, encode_yaml


def read(suffixes: tuple[str, ...], folder: Path, note: Note) -> Iterator[Row]:
    """Pictures with the captions of sidecars of these endings, and of no others."""
    for picture in pictures(folder):
        written = look_at(picture, suffixes, note)
        caption = None if written.origin == "name" else caption_of(picture.base, written)
        yield Row(picture.name, caption, picture.file)


def write(suffix: str, rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Pictures under their own names, each with its sidecar."""
    names, encode = Names(), encode_yaml if suffix == ".yaml" else encode_text
    for done, row in enumerate(rows, 1):
        name = row.name if target.in_place else names.name(row.name)
        stem = os.path.splitext(name)[0]
        if f"{os.path.basename(stem)}{suffix}" in CONTROLS:
            target.log(SKIPPED, row.name, "its sidecar would be one of EveryDream's control files")
        elif target.picture(row, name):
            target.text(f"{stem}{suffix}", encode(row.caption or ""))
        yield done
