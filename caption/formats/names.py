"""Captions in file names, as EveryDream's trainers read a folder; see dreamloom.caption.filename."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamloom.base.text import without_surrogates
from dreamloom.caption.filename import NameWriter
from dreamloom.caption.formats.rows import Note, Row, list_images, read_noted_sidecars, sanitize
from dreamloom.caption.formats.target import Target
from dreamloom.caption.sidecar import resolve_caption
from dreamloom.caption.sidecar_writer import encode_text
from dreamloom.scrape.datasets.sidecar_files import SIDECARS


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Reads what the trainer reads: the sidecar if there is one, else the name."""
    for image in list_images(folder):
        content = read_noted_sidecars(image, SIDECARS, note)
        yield Row(image.name, without_surrogates(resolve_caption(image.base, content)), image.file)


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Writes images under their captions, in folders as before, with a .txt where a name can't hold the caption."""
    writers: dict[str, NameWriter] = {}
    for done, row in enumerate(rows, 1):
        folder, slash, base = sanitize(row.name).rpartition("/")
        writer = writers.setdefault(folder.casefold(), NameWriter())
        name, needs_sidecar = writer.name(row.caption or "", os.path.splitext(base)[1])
        if target.add_image(row, f"{folder}{slash}{name}") and needs_sidecar:
            target.add_text(f"{folder}{slash}{os.path.splitext(name)[0]}.txt", encode_text(row.caption or ""))
        yield done
