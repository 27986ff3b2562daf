"""Captions in files beside their images: .txt, .caption, or EveryDream 2's .yaml; see dreamloom.caption.sidecar."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamloom.caption.filename import CONTROLS
from dreamloom.caption.formats.rows import Note, Row, UniqueNames, list_images, read_noted_sidecars
from dreamloom.caption.formats.target import SKIPPED, Target
from dreamloom.caption.sidecar import resolve_caption
from dreamloom.caption.sidecar_writer import encode_text, encode_yaml


def read(suffixes: tuple[str, ...], folder: Path, note: Note) -> Iterator[Row]:
    """Reads images with the captions of sidecars with these suffixes, and no others."""
    for image in list_images(folder):
        content = read_noted_sidecars(image, suffixes, note)
        caption = None if content.origin == "name" else resolve_caption(image.base, content)
        yield Row(image.name, caption, image.file)


def write(suffix: str, rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Writes images under their own names, each with its sidecar."""
    names, encode = UniqueNames(), encode_yaml if suffix == ".yaml" else encode_text
    for done, row in enumerate(rows, 1):
        name = row.name if target.in_place else names.assign(row.name)
        stem = os.path.splitext(name)[0]
        if f"{os.path.basename(stem)}{suffix}" in CONTROLS:
            target.log(SKIPPED, row.name, "its sidecar would be one of EveryDream's control files")
        elif target.add_image(row, name):
            target.add_text(f"{stem}{suffix}", encode(row.caption or ""))
        yield done
