"""Brings in the images that a source lists: reads each whole, and records what became of it.

A source lists its images in a fixed order. Each image is read and decoded, since a header alone does not show that a
file is truncated, and stored in the collection (store_image.py). The originals are never changed.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from dreamloom.base.images.metadata import find_refusal
from dreamloom.base.images.missing_end import NOTE as MISSING_END
from dreamloom.base.images.missing_end import with_end
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.progress import Progress
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.base.text import without_surrogates
from dreamloom.base.threads import map_ordered
from dreamloom.scrape.collection import Collection, Row, Status, Table
from dreamloom.scrape.collection.parts import make_parts, split
from dreamloom.scrape.collection.records import settle_images, summarize_records
from dreamloom.scrape.datasets.fields import SourceConfig
from dreamloom.scrape.datasets.image_files import ListedFile, UnreadableError, read_file
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_recipes import FileVersion, MadeFrom, SourceRecipes
from dreamloom.scrape.datasets.store_image import store_image
from dreamloom.scrape.datasets.stored import find_stored, store_recipe

_log = logging.getLogger(__name__)

_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class MissingImage:
    """Why a source has no image for a row."""

    status: Status
    detail: str = ""


@dataclass(frozen=True)
class SourceImage:
    """An image to record."""

    key: str
    path: str
    """Where it is: a file, or a file and a place in it."""
    content: Path | Callable[[], bytes] | MissingImage
    """The file itself, or a function that reads its bytes (and raises ImageError)."""
    metadata: ImageMetadata


ReadPart = Callable[[str], tuple[int, Iterable[SourceImage]]]
"""Part → its number of rows, and its images in order."""


# Making parts


def part_recipes(
    collection: Collection,
    stage: str,
    config: StageConfig,
    files: Sequence[ListedFile],
    part_rows: int,
    upstream: Iterable[FileVersion] = (),
    table: Table = Table.RECORDS,
) -> SourceRecipes:
    """Returns part → recipe, for files in the order of their rows.

    Args:
        collection: the collection that has the parts, or will have.
        stage: name of the stage.
        config: config of the stage.
        files: what the parts are made from.
        part_rows: rows per part.
        upstream: versions of further files that all parts are made from.
        table: the table of the parts.
    """
    return SourceRecipes(collection, table, stage, config, made_from(files, part_rows, upstream))


def made_from(files: Sequence[ListedFile], part_rows: int, upstream: Iterable[FileVersion] = ()) -> MadeFrom:
    """Returns what each part is made from; see `part_recipes`."""
    common = list(upstream)
    return {part: common + [row_version(file) for file in members] for part, members in split(files, part_rows).items()}


def row_version(file: ListedFile) -> FileVersion:
    """Returns what the row of a file is made from."""
    version = file.version
    return FileVersion(version.files, version.stat, f"{file.key} {version.before}", version.after)


def part_reader(
    files: Sequence[ListedFile] | Callable[[str], Sequence[ListedFile]],
    part_rows: int,
    metadata_of: Callable[[ListedFile], ImageMetadata],
) -> ReadPart:
    """Returns a function that reads the images of a part.

    Args:
        files: the image files of all parts, in order; or a function from part to its own.
        part_rows: rows per part.
        metadata_of: returns what the source knows of an image.
    """
    of_part = files if callable(files) else split(files, part_rows).__getitem__

    def read_part(part: str) -> tuple[int, Iterable[SourceImage]]:
        members = of_part(part)
        images = (SourceImage(file.key, str(file.path.absolute()), file.path, metadata_of(file)) for file in members)
        return len(members), images

    return read_part


def ingest(
    collection: Collection,
    config: SourceConfig,
    recipes: SourceRecipes,
    read_part: ReadPart,
    progress: Progress,
    parts: Sequence[str] | None,
    left_out: Mapping[str, int] | None = None,
) -> Summary:
    """Writes the records of a source, and links or stores its images.

    Args:
        collection: the collection to fill.
        config: config of the source.
        recipes: of all parts.
        read_part: reads the images of a part.
        progress: called with the number of images done.
        parts: only these; None: all.
        left_out: images beside those of the source, by a word for the reason.

    Returns:
        The summary: `kept` are the stored images, `dropped` counts the others by status.

    Raises:
        UserError: another process works on this collection.
        ExceptionGroup: some parts failed; the others are done.
    """

    def make_part(part: str, progress: Progress) -> tuple[list[Row], Summary]:
        rows, counts, unread = [], Counter[str](), list[str]()
        total, images = read_part(part)
        stored = find_stored(collection, part, config)
        record = partial(_record_image, collection.image_folder(part), config, stored, unread)
        for row in map_ordered(record, images, _THREADS, ahead=4 * _THREADS):
            rows.append(row)
            counts[row["status"]] += 1
            progress(len(rows), total, _note(counts))
        settle_images(collection.image_folder(part), rows)
        summary = summarize_records(rows)
        summary.marked |= _marks(rows)
        summary.unread = len(unread)
        if unread:
            _log.warning("%d files can't be read now, and are tried again by the next run: %s", len(unread), unread[0])
        return rows, summary

    summary = make_parts(
        collection,
        Table.RECORDS,
        config,
        recipes,
        make_part,
        progress,
        parts,
        models=store_recipe(config),
        by_content=recipes.by_content,
    )
    if parts is None or min(recipes) in parts:  # once, however many calls make the parts
        summary.left_out = dict(left_out or {})
    return summary


# One image


def _record_image(
    folder: Path, config: SourceConfig, stored: Mapping[str, Row], unread: list[str], image: SourceImage
) -> Row:
    """Stores an image in a part's folder, unless it is there, and returns its row of the records.

    One that the system does not let us read is added to `unread`.
    """
    row: Row = {"key": image.key, "status": Status.OK, "path": image.path, "image": None, "bytes": None}
    try:
        if isinstance(image.content, Path) and stored.get(image.key, {}).get("path") == image.path:
            row |= stored[image.key]
        elif isinstance(image.content, MissingImage):
            row |= {"status": image.content.status, "detail": image.content.detail or None}
        else:
            _store(row, image, image.content, folder, config)
    except ImageError as error:
        row |= {"status": Status(error.reason), "detail": error.detail or None}
        if isinstance(error, UnreadableError):
            unread.append(f"{image.path} ({error.detail})")
    row |= {name: value for name, value in asdict(image.metadata).items() if value is not None}
    return {name: without_surrogates(value) if type(value) is str else value for name, value in row.items()}


def _store(
    row: Row, image: SourceImage, content: Path | Callable[[], bytes], folder: Path, config: SourceConfig
) -> None:
    """Stores an image, and adds to its row what is known of it.

    Raises:
        ImageError: see dreamloom.base.images.pixels.Reason.
    """
    data = read_file(content) if isinstance(content, Path) else content()
    row["consent"] = find_refusal(data)
    original = content if isinstance(content, Path) else None
    extension = os.path.splitext(image.path)[1].lower()
    try:
        row |= store_image(folder / image.key, data, extension, original, config)
    except ImageError as error:
        whole = with_end(data) if error.reason == "truncated" else None
        if whole is None:
            raise
        own = {"detail": MISSING_END, "sha256": hashlib.sha256(data).hexdigest()}  # of the file as it is
        row |= store_image(folder / image.key, whole, extension, None, config) | own


def _marks(rows: Iterable[Row]) -> dict[str, int]:
    """Counts the stored images that somebody may want to look at."""
    stored = [row for row in rows if row["status"] == Status.OK]
    counts = {
        "blank_caption": sum(row.get("text") == "" for row in stored),
        "opted_out": sum(row.get("consent") is not None for row in stored),
    }
    return {mark: count for mark, count in counts.items() if count}


def _note(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if status != Status.OK)
