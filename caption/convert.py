"""Converts captions from one format into another: a folder of images into a new folder, or by adding sidecars.

Originals are never changed. A new folder gets copies of the images, or hard links if asked; in place,
only sidecars are added. Each file is written atomically and existing ones are kept, so that a killed run resumes and a
finished one has nothing to do.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.caption.filename import find_controls
from dreamloom.caption.formats import FORMATS, SOURCES, Format
from dreamloom.caption.formats.rows import Row, oddities, sanitize
from dreamloom.caption.formats.target import CHANGED, SKIPPED, Log, Target
from dreamloom.caption.new_folder import check_new_folder, claim_folder

Named = TypeVar("Named")

Change = Callable[[Row, str], str | None]
"""Returns another caption for a row, given the name of its image's folder; None leaves the image out."""


@dataclass(frozen=True)
class ConversionResult:
    """What a conversion did."""

    images: int
    """Images that were found."""
    kept: int
    """Images that have a caption and can be read."""
    log: Log
    seconds: float


def convert(
    folder: Path,
    source: str,
    to: str,
    output: Path | None,
    log_file: Path | None,
    progress: Progress = silent,
    change: Change | None = None,
    link: bool = False,
) -> ConversionResult:
    """Writes a folder's images and captions in another format.

    Args:
        folder: The images.
        source: A name in SOURCES.
        to: A name in FORMATS.
        output: The folder to make or resume; None: add sidecars in `folder`.
        log_file: Gets a line appended for each file made, changed, skipped or odd; None: nothing is logged.
        progress: Is called with the images done.
        change: Edits each caption.
        link: The new folder gets hard links, by which whoever writes into an image changes the original.

    Raises:
        UserError: there is no such format, there are no images, or `output` belongs to something else.
    """
    start = time.monotonic()
    writer = _lookup(to, FORMATS)
    _check(folder, writer, output, change)
    with Log(log_file, f"{folder}: {source} to {to}") as log:
        rows = read_rows(folder, source, log, progress, change)
        target = Target(output or folder, log, in_place=output is None, link=link)
        left_out = log.count(SKIPPED)
        if output is not None:
            _claim(output, folder, source, to, rows)
        with target.lock():
            target.remove_leftovers()
            for done in writer.write(rows, target):
                progress(done, len(rows), f"{log.count(SKIPPED)} skipped")
            if output is not None and source in FORMATS and FORMATS[source].keeps_folder and writer.keeps_folder:
                _copy_controls(folder, rows, target)
    return ConversionResult(len(rows) + left_out, len(rows), log, time.monotonic() - start)


def read_rows(
    folder: Path, source: str, log: Log, progress: Progress = silent, change: Change | None = None
) -> list[Row]:
    """Reads the images of a folder that have captions, and edits these; the log says why others are left out.

    Raises:
        UserError: the folder has another format.
    """
    rows: list[Row] = []
    for number, row in enumerate(_lookup(source, SOURCES)(folder, log.note), 1):
        fault = _fault(row)
        edited = None if fault else _edit_row(row, folder, log, change)
        if edited is None:
            log(SKIPPED, row.name, fault or "no caption")
        else:
            rows.append(edited)
        progress(number, None, "read")
    return rows


def _lookup(name: str, formats: Mapping[str, Named]) -> Named:
    if name not in formats:
        raise UserError(f"There is no format {name}; there are {', '.join(formats)}.")
    return formats[name]


def _check(folder: Path, writer: Format, output: Path | None, change: Change | None) -> None:
    if output is None and not writer.in_place:
        raise UserError(f"{writer.name} needs a folder of its own, as originals stay as they are; name one: --output.")
    if output is None and change is not None:
        raise UserError(
            "Edited captions need a folder of their own, as originals stay as they are; name one: --output."
        )
    if output is not None:
        check_new_folder(output, folder)


def _edit_row(row: Row, folder: Path, log: Log, change: Change | None) -> Row | None:
    text = row.caption or ""
    if change is not None:
        changed = change(row, os.path.basename(os.path.dirname(row.name)) or folder.absolute().name)
        if changed is None:
            return None
        text = changed
        if text != row.caption:
            log(CHANGED, row.name, "", f"{row.caption!r} -> {text!r}")
    for kind in oddities(text):
        log.note(kind, f"{row.name}: {text[:100]!r}")
    return replace(row, caption=text)


def _fault(row: Row) -> str:
    """Returns why a row can't be written; empty if it can."""
    if row.caption is None:
        return "no caption"
    try:
        empty = row.size == 0
    except OSError:
        return "image can't be read"
    return "image is an empty file" if empty else ""


def _claim(output: Path, folder: Path, source: str, to: str, rows: Sequence[Row]) -> None:
    """Makes the new folder, or checks that this very conversion began it.

    Raises:
        UserError: another did.
    """
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(f"{row.name}\0{row.caption}\0{row.size}\0".encode("utf-8", "surrogatepass"))
    content = {"made by": "dreamloom caption", "source": source, "to": to, "rows": digest.hexdigest()}
    claim_folder(output, content, "images, captions or formats")


def _copy_controls(folder: Path, rows: Sequence[Row], target: Target) -> None:
    """Copies EveryDream's control files, which belong to the folders of images."""
    folders = {parent for row in rows for parent in PurePath(row.name).parents}
    for place in sorted(folders):
        names = (
            [path.name for path in (folder / place).iterdir() if path.is_file()] if (folder / place).is_dir() else []
        )
        for control, found in sorted(find_controls(names).items()):
            target.add_text(sanitize(f"{place}/{control}"), (folder / place / found[0]).read_bytes())
