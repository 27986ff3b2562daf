"""Zip archives of images, with sidecars, or with metadata.jsonl, .csv or .parquet, inside; nothing is unpacked to disk.

Of several captions of an image that of a sidecar counts, then that of a table, then that of its name.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames, path_key
from dreamloom.base.files.given_names import reads_like_a_caption
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, Summary
from dreamloom.base.tables.documents import MAX_BYTES, DocumentError
from dreamloom.base.tables.tables import TableRow, parse_table
from dreamloom.scrape.collection import CaptionKind, Collection, Table, key_of
from dreamloom.scrape.datasets.fields import (
    CaptionColumn,
    KeepEmpty,
    Limit,
    PartRows,
    SourceConfig,
    UserPath,
    WhoseCaptions,
)
from dreamloom.scrape.datasets.folder import CaptionReader
from dreamloom.scrape.datasets.image_files import find_files
from dreamloom.scrape.datasets.imagefolder import TABLES, file_name, row_fault
from dreamloom.scrape.datasets.ingest import SourceImage, ingest
from dreamloom.scrape.datasets.metadata import CaptionRules, ImageMetadata, metadata_from_row
from dreamloom.scrape.datasets.sidecar_files import find_sidecars
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize
from dreamloom.scrape.datasets.source_recipes import SourceRecipes, file_version
from dreamloom.scrape.datasets.zip_members import ZipArchive, open_zip

_MAX_TABLE_BYTES = 2**28
"""Maximum unpacked size of a table."""

_log = logging.getLogger(__name__)


class ZipConfig(SourceConfig):
    """Zip archives of images."""

    path: UserPath = Field(description="A zip archive, or a folder of some; folders below it are included.")
    limit: Limit = None
    part_rows: PartRows = PART_ROWS
    caption_column: CaptionColumn = None
    caption_kind: WhoseCaptions = "human"
    keep_empty: KeepEmpty = False


Plan = Mapping[str, Sequence[tuple[Path, int, int]]]
"""Part → archives, each with the place of its first image in the part, and the place behind the last."""


def recipes(collection: Collection, config: ZipConfig) -> SourceRecipes:
    """Returns part → recipe; writes nothing.

    Raises:
        UserError: there is no archive, no image in them, or one can't be read.
    """
    return _recipes(collection, config, _plan(config, Counter()))


def ingest_zip(
    collection: Collection,
    config: ZipConfig,
    read_caption: CaptionReader,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
) -> Summary:
    """Records the images of archives; see dreamloom.scrape.datasets.ingest.

    Args:
        collection: the collection to fill.
        config: the archives, and whose captions they are.
        read_caption: finds the caption of an image, in a sidecar or its name.
        progress: called with the number of images done.
        parts: only these; None: all.

    Raises:
        UserError: there is no archive, no image in them, or one can't be read.
    """
    left_out = Counter[str]()
    plan = _plan(config, left_out)

    def read_part(part: str) -> tuple[int, Iterator[SourceImage]]:
        images = (image for piece in plan[part] for image in _read_images(*piece, config, read_caption))
        return sum(end - start for _, start, end in plan[part]), images

    return ingest(collection, config, _recipes(collection, config, plan), read_part, progress, parts, left_out)


def measure(config: ZipConfig) -> SourceSize:
    """Counts the images of the archives.

    Raises:
        UserError: there is no archive, or one can't be read.
    """
    files = find_zips(config.path)
    images = sum(len(open_zip(file).images) for file in files)
    return SourceSize(images if config.limit is None else min(images, config.limit), "images", _size(files))


def find_zips(path: Path) -> list[Path]:
    """Lists the archives at a path.

    Raises:
        UserError: there is none.
    """
    files = [path] if path.is_file() else find_files(path, "*.zip")
    if not files:
        raise UserError(f"{path} is no zip archive and holds none; name one, or a folder of some.")
    return files


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _plan(config: ZipConfig, left_out: Counter[str]) -> Plan:
    """Divides the images of consecutive archives into parts; reads the archives' directories."""
    pieces: dict[str, list[tuple[Path, int, int]]] = {}
    planned = 0
    for file in find_zips(config.path):
        opened = open_zip(file)
        left_out.update(opened.left_out)
        images, start = len(opened.images), 0
        while start < images and (config.limit is None or planned < config.limit):
            room = config.part_rows - planned % config.part_rows
            end = min(images, start + room, images if config.limit is None else start + config.limit - planned)
            pieces.setdefault(f"{planned // config.part_rows:05d}", []).append((file, start, end))
            planned, start = planned + end - start, end
    if not pieces:
        raise UserError(f"{config.path} holds no image; name a zip archive of images.")
    return pieces


def _recipes(collection: Collection, config: ZipConfig, plan: Plan) -> SourceRecipes:
    made_from = {
        part: [file_version(file, after=f" {start} {end}") for file, start, end in pieces]
        for part, pieces in plan.items()
    }
    return SourceRecipes(collection, Table.RECORDS, "ingest zip", config, made_from)


# One archive


def _read_images(
    file: Path, start: int, end: int, config: ZipConfig, read_caption: CaptionReader
) -> Iterator[SourceImage]:
    opened = open_zip(file)
    rules = CaptionRules(CaptionKind(config.caption_kind), config.keep_empty, config.caption_column)
    rows = _read_tables(opened)
    for name in opened.images[start:end]:
        metadata = _metadata(opened, name, rows.get(path_key(name)), rules, read_caption)
        key = key_of("zip", file.resolve().name, name)
        yield SourceImage(key, f"{file.absolute()}/{name}", partial(opened.read, name), metadata)


def _read_tables(opened: ZipArchive) -> dict[str, TableRow]:
    """Returns path of an image → its row in the archive's tables; logs what can't be read."""
    rows: dict[str, TableRow] = {}
    for name in sorted(opened.members):
        folder, slash, own = name.rpartition("/")
        if own.lower() not in TABLES:
            continue
        try:
            for row in parse_table(Path(own).suffix, opened.read(name, _MAX_TABLE_BYTES)):
                if fault := row_fault(row):
                    _log.warning("%s/%s, row %d: %s", opened.file, name, row.number, fault)
                else:
                    rows[path_key(f"{folder}{slash}{file_name(row)}")] = row
        except (ImageError, DocumentError) as error:
            _log.warning("%s/%s can't be read and is skipped (%s)", opened.file, name, error)
    return rows


def _metadata(
    opened: ZipArchive, name: str, row: TableRow | None, rules: CaptionRules, read_caption: CaptionReader
) -> ImageMetadata:
    try:
        metadata = metadata_from_row(row.cells, rules) if row else ImageMetadata()
    except DocumentError as error:
        raise UserError(f"{opened.file}, {name}: {error} as caption_column.") from error
    if rules.kind is CaptionKind.NONE:
        return metadata
    text, is_named, is_blank = _read_own_caption(opened, name, read_caption)
    if metadata.text and (is_named or not text.strip()):
        return metadata
    if is_named and not reads_like_a_caption(text):
        text = ""
    own_text, kind = rules.apply(text, is_blank or metadata.text is not None)
    return replace(metadata, text=own_text, text_kind=kind)


def _read_own_caption(opened: ZipArchive, name: str, read_caption: CaptionReader) -> tuple[str, bool, bool]:
    """Reads the caption of an image from its sidecars, as from those of a file, or from its name.

    Returns:
        The caption, whether it is the name's, and whether there is a blank sidecar.
    """
    folder, slash, own = name.rpartition("/")
    sidecars = {file: f"{folder}{slash}{file}" for _, file in find_sidecars(own, opened.folders[folder])}
    if not sidecars:
        caption = read_caption(Path(own), FolderNames([own]))
        return caption.text, True, False
    with tempfile.TemporaryDirectory(prefix="dreamloom-") as lent:
        for file, member in sidecars.items():
            try:
                Path(lent, file).write_bytes(opened.read(member, MAX_BYTES))
            except (ImageError, OSError) as error:
                _log.warning("%s/%s can't be read and is skipped (%s)", opened.file, member, error)
        caption = read_caption(Path(lent, own), FolderNames([own, *(path.name for path in Path(lent).iterdir())]))
    return caption.text, caption.origin == "name", caption.blank_sidecar


KIND = SourceKind(
    name="zip",
    help="Bring in zip archives of images, with sidecars or metadata inside.",
    config=ZipConfig,
    recipes=recipes,
    ingest=ingest_zip,
    measure=measure,
    reads_captions=True,
)
