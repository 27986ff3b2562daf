"""Captions from one convention into another: a folder of images as a new folder, or with sidecars added.

Originals are never touched. Into a new folder images come as hard links; in place only sidecars are added, beside
what is there. Each file is made whole or not at all, and what is there already is right: a run that was killed goes
on where it was, and one that was not has nothing to do.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

from dreamloom.base.errors import UserError
from dreamloom.base.files import TEMPORARY, commit_json
from dreamloom.base.progress import Progress, silent
from dreamloom.caption.filename import CONTROLS
from dreamloom.caption.formats import FORMATS, SOURCES, Format
from dreamloom.caption.formats.rows import Row, oddities, safe
from dreamloom.caption.formats.target import CHANGED, SKIPPED, Log, Target

_MARK = ".dreamloom.json"
"""Says what a folder was made from."""

Known = TypeVar("Known")

Change = Callable[[Row, str], str]
"""Another caption for a row; beside it is the name of the folder in which its image lies."""


@dataclass(frozen=True)
class Converted:
    """What became of a folder."""

    pictures: int
    """That were found."""
    kept: int
    """That have a caption and can be read."""
    log: Log
    seconds: float


def convert(
    folder: Path,
    source: str,
    to: str,
    output: Path | None,
    log_file: Path,
    progress: Progress = silent,
    change: Change | None = None,
) -> Converted:
    """Writes a folder's images and captions in another format.

    Args:
        source: a name in SOURCES.
        to: a name in FORMATS.
        output: the folder to make, or to go on with; None: sidecars are added in `folder`.
        log_file: gets a line for each file made, changed, skipped or odd, after what it holds.
        change: edits each caption.

    Raises:
        UserError: it can't be done: no such format or image, or `output` is not this conversion's.
    """
    begun = time.monotonic()
    writer = _named(to, FORMATS)
    _check(folder, writer, output, change)
    with Log(log_file, f"{folder}: {source} to {to}") as log:
        rows = read_rows(folder, source, log, progress, change)
        target = Target(output or folder, log, in_place=output is None)
        left_out = log.count(SKIPPED)
        if output is not None:
            _claim(output, folder, source, to, rows)
        with target.held():
            target.sweep()
            for done in writer.write(rows, target):
                progress(done, len(rows), f"{log.count(SKIPPED)} skipped")
            if output is not None and source in FORMATS and FORMATS[source].keeps_folder and writer.keeps_folder:
                _copy_controls(folder, rows, target)
    return Converted(len(rows) + left_out, len(rows), log, time.monotonic() - begun)


def read_rows(
    folder: Path, source: str, log: Log, progress: Progress = silent, change: Change | None = None
) -> list[Row]:
    """The images of a folder that have captions, edited; the log says why the others are left out.

    Raises:
        UserError: it is no folder of that format.
    """
    rows: list[Row] = []
    for number, row in enumerate(_named(source, SOURCES)(folder, log.note), 1):
        fault = _fault(row)
        if fault:
            log(SKIPPED, row.name, fault)
        else:
            rows.append(_edited(row, folder, log, change))
        progress(number, None, "read")
    return rows


def _named(what: str, known: Mapping[str, Known]) -> Known:
    if what not in known:
        raise UserError(f"There is no format {what}; there are {', '.join(known)}.")
    return known[what]


def _check(folder: Path, writer: Format, output: Path | None, change: Change | None) -> None:
    if output is None and not writer.beside:
        raise UserError(f"{writer.name} needs a folder of its own, as originals stay as they are; name one: --output.")
    if output is None and change is not None:
        raise UserError(
            "Edited captions need a folder of their own, as originals stay as they are; name one: --output."
        )
    if output is not None:
        new, old = output.resolve(), folder.resolve()
        if new.is_relative_to(old) or old.is_relative_to(new):
            raise UserError(f"{output} and {folder} lie in each other; name an output that lies elsewhere.")
        if output.exists() and not (output / _MARK).is_file() and not _is_empty(output):
            raise UserError(f"{output} is there, and was not made from {folder}; name a folder that is not there yet.")


def _edited(row: Row, folder: Path, log: Log, change: Change | None) -> Row:
    text = row.caption or ""
    if change is not None:
        text = change(row, os.path.basename(os.path.dirname(row.name)) or folder.absolute().name)
        if text != row.caption:
            log(CHANGED, row.name, "", f"{row.caption!r} -> {text!r}")
    for kind in oddities(text):
        log.note(kind, f"{row.name}: {text[:100]!r}")
    return replace(row, caption=text)


def _fault(row: Row) -> str:
    """Why a row can't be written; empty where it can."""
    if row.caption is None:
        return "no caption"
    try:
        empty = row.size == 0
    except OSError:
        return "picture can't be read"
    return "picture is an empty file" if empty else ""


def _claim(output: Path, folder: Path, source: str, to: str, rows: Sequence[Row]) -> None:
    """Makes the new folder, or sees that it is one that this very conversion began.

    Raises:
        UserError: it is another.
    """
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(f"{row.name}\0{row.caption}\0{row.size}\0".encode("utf-8", "surrogatepass"))
    made = {"made by": "dreamloom caption", "source": source, "to": to, "rows": digest.hexdigest()}
    mark = output / _MARK
    if not mark.is_file():
        commit_json(mark, made)
    elif json.loads(mark.read_bytes()) != made:
        raise UserError(f"{output} was made from other images, captions or formats; name another folder.")


def _is_empty(path: Path) -> bool:
    """Whether it is a folder in which there is nothing but what a killed run left."""
    return path.is_dir() and all(name.startswith(TEMPORARY) for name in os.listdir(path))


def _copy_controls(folder: Path, rows: Sequence[Row], target: Target) -> None:
    """What EveryDream's own files say of folders goes with their images."""
    places = {above for row in rows for above in PurePath(row.name).parents}
    for place in sorted(places):
        for name in sorted(CONTROLS):
            if (folder / place / name).is_file():
                target.text(safe(f"{place}/{name}"), (folder / place / name).read_bytes())
