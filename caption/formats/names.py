"""Captions in file names, as EveryDream's trainers read a folder: see dreamloom.caption.filename."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamloom.caption.filename import NameWriter
from dreamloom.caption.formats.rows import Note, Row, look_at, pictures, safe
from dreamloom.caption.formats.target import Target
from dreamloom.caption.sidecar import caption_of, encode_text
from dreamloom.scrape.datasets.folder import SIDECARS
from dreamloom.scrape.datasets.ingest import SURROGATES


def read(folder: Path, note: Note) -> Iterator[Row]:
    """What the trainer reads: a sidecar where there is one, else the name."""
    for picture in pictures(folder):
        written = look_at(picture, SIDECARS, note)
        yield Row(picture.name, caption_of(picture.base, written).translate(SURROGATES), picture.file)


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Pictures under their captions, each folder's in a folder of that name; a .txt where a name can't hold one."""
    writers: dict[str, NameWriter] = {}
    for done, row in enumerate(rows, 1):
        folder, slash, base = safe(row.name).rpartition("/")
        writer = writers.setdefault(folder.casefold(), NameWriter())
        name, needs_sidecar = writer.name(row.caption or "", os.path.splitext(base)[1])
        if target.picture(row, f"{folder}{slash}{name}") and needs_sidecar:
            target.text(f"{folder}{slash}{os.path.splitext(name)[0]}.txt", encode_text(row.caption or ""))
        yield done
