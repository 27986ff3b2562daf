"""What the sources on disk share: find the images that are there, read each whole, record what became of it.

A source lists its images in a fixed order (find). Each is then read and decoded, for a header alone does not show
that it is cut short (read), and linked into the collection, or written where it is no file of its own, or stored again
where other programs would show it otherwise than it is meant: turned by EXIF, with another colour profile, 16-bit,
CMYK, transparent, animated (record). The originals are never touched.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit, link_or_copy
from dreamloom.base.image_types import IMAGE_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dreamloom.base.pixels import ImageError, ImageHeader, check_whole, decode, read_header
from dreamloom.base.progress import Progress
from dreamloom.base.stage import StageConfig, Summary, recipe
from dreamloom.base.threads import map_ordered
from dreamloom.scrape.collection import Collection, Row, Status, Table
from dreamloom.scrape.collection.parts import make_parts, split
from dreamloom.scrape.collection.records import (
    STORED_SUFFIXES,
    image_columns,
    remove_unlisted_images,
    summarize_records,
)
from dreamloom.scrape.datasets.metadata import ImageMetadata

VERSION = 1
"""Raised when the code below starts to make other rows from the same files."""

_THREADS = min(8, os.cpu_count() or 1)

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path in a config, which may begin with ~."""


@dataclass(frozen=True)
class ListedFile:
    """A file that a source has."""

    key: str
    path: Path
    version: str
    """Changes when the file, or what its row is made of, does."""

    @property
    def exists(self) -> bool:
        """Whether the file existed when it was listed."""
        return not self.version.endswith(_MISSING)


@dataclass(frozen=True)
class MissingImage:
    """Why a source has no image for a row."""

    status: Status
    detail: str = ""


@dataclass(frozen=True)
class SourceImage:
    """An image that is to be recorded."""

    key: str
    path: str
    """Where it lies: a file, or a file and the place in it."""
    picture: Path | Callable[[], bytes] | MissingImage
    """The file itself, or what gives its bytes (and raises ImageError where it can't)."""
    facts: ImageMetadata


ReadPart = Callable[[str], tuple[int, Iterable[SourceImage]]]
"""Part → how many rows it has, and the images, in order."""


def find_images(folder: Path) -> list[tuple[Path, frozenset[str]]]:
    """The images below a folder, hidden ones left out, each with the names of all files beside it; sorted by path.

    Raises:
        UserError: it is no folder, one below it can't be read, or there is no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name the folder in which the images lie.")
    found: list[tuple[Path, frozenset[str]]] = []
    others: Counter[str] = Counter()
    seen = set()
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        if os.path.realpath(parent) in seen:  # a link back up
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = frozenset(name for name in files if not name.startswith("."))
        suffixes = {name: os.path.splitext(name)[1] for name in names}
        found += [
            (Path(parent, name), names) for name, suffix in suffixes.items() if suffix.lower() in IMAGE_EXTENSIONS
        ]
        others.update(suffixes.values())
    if not found:
        there = ", ".join(f"{count} {suffix or 'without extension'}" for suffix, count in others.most_common(3))
        raise UserError(f"{folder} holds no image ({there or 'no file at all'}); name a folder that holds some.")
    return sorted(found, key=lambda each: each[0].parts)


def file_version(*files: Path) -> str:
    """Name, size and modification time of files, as text; a file that is not there is missing."""
    return "|".join(_version(file) for file in files)


def part_recipes(
    stage: str, config: StageConfig, listed: Sequence[ListedFile], part_rows: int, upstream: Iterable[str] = ()
) -> dict[str, str]:
    """Part → recipe, for images in the order in which they shall be in the table."""
    common = list(upstream)
    return {
        part: recipe(stage, VERSION, config, common + [f"{one.key} {one.version}" for one in ones])
        for part, ones in split(listed, part_rows).items()
    }


def part_reader(listed: Sequence[ListedFile], part_rows: int, facts: Callable[[ListedFile], ImageMetadata]) -> ReadPart:
    """The files listed, as the items of parts.

    Args:
        facts: what the source says of a file.
    """
    plan = split(listed, part_rows)

    def items(part: str) -> tuple[int, Iterable[SourceImage]]:
        ones = plan[part]
        return len(ones), (SourceImage(one.key, str(one.path.absolute()), one.path, facts(one)) for one in ones)

    return items


def ingest(
    collection: Collection,
    config: StageConfig,
    recipes: Mapping[str, str],
    items: ReadPart,
    progress: Progress,
    parts: Sequence[str] | None,
) -> Summary:
    """Makes the records of a source's images, and links or stores the images.

    Returns:
        Its kept are the images stored; dropped counts by status.

    Raises:
        UserError: another process works on this collection.
    """

    def work(part: str, progress: Progress) -> tuple[list[Row], Summary]:
        rows, tally = [], Counter[str]()
        count, pictures = items(part)
        for row in map_ordered(partial(record, collection, part), pictures, _THREADS, ahead=4 * _THREADS):
            rows.append(row)
            tally[row["status"]] += 1
            progress(len(rows), count, _note(tally))
        remove_unlisted_images(collection.image_folder(part), rows)
        return rows, summarize_records(rows)

    return make_parts(collection, Table.RECORDS, config, recipes, work, progress, parts)


# One image

SURROGATES = {code: chr(code - 0xDC00) if 0xDC80 <= code <= 0xDCFF else "\ufffd" for code in range(0xD800, 0xE000)}
"""Makes text that a table can hold: the bytes of a file name that is not UTF-8, which Python keeps as surrogates, are
taken for Latin-1."""


def record(collection: Collection, part: str, item: SourceImage) -> Row:
    """Puts an image into the collection, and gives its row of the records."""
    row: Row = {"key": item.key, "status": Status.OK, "path": item.path, "image": None, "bytes": None}
    try:
        if isinstance(item.picture, MissingImage):
            row |= {"status": item.picture.status, "detail": item.picture.detail or None}
        else:
            row |= _store(item, item.picture, collection.image_folder(part))
    except ImageError as error:
        row |= {"status": Status(error.reason), "detail": error.detail or None}
    row |= {name: value for name, value in asdict(item.facts).items() if value is not None}
    return {name: value.translate(SURROGATES) if type(value) is str else value for name, value in row.items()}


_LOSSY = ("JPEG", "MPO", "AVIF", "JPEG2000")


def _store(item: SourceImage, source: Path | Callable[[], bytes], folder: Path) -> Row:
    """Puts an image into the collection: itself where any program shows it right, else decoded and encoded again.

    Raises:
        ImageError: see dreamloom.base.pixels.Reason.
    """
    data = _bytes(source) if isinstance(source, Path) else source()
    header = _read_header(data, os.path.splitext(item.path)[1].lower())
    if header.plain:
        check_whole(data)
        target = folder / f"{item.key}{STORED_SUFFIXES[header.format]}"
        if isinstance(source, Path):
            link_or_copy(source, target)
        else:
            with commit(target) as temporary:
                temporary.write_bytes(data)
    else:
        pixels = decode(data)
        target = folder / f"{item.key}{'.jpg' if header.format in _LOSSY else '.png'}"
        with commit(target) as temporary:
            if target.suffix == ".jpg":
                pixels.save(temporary, "JPEG", quality=95, subsampling=0)
            else:
                pixels.save(temporary, "PNG")
    size = (header.width, header.height)
    return image_columns(target, size, size, target.stat().st_size, hashlib.sha256(data).hexdigest())


def _read_header(data: bytes, extension: str) -> ImageHeader:
    """Reads an image's header; a file that is named as a kind that is not decoded is "unsupported".

    Unless it is an image of a kind that is decoded under a wrong name. A TIFF is none: the raw files of cameras are
    TIFFs whose first page is a thumbnail.

    Raises:
        ImageError: see dreamloom.base.pixels.read_header.
    """
    if extension not in UNSUPPORTED_EXTENSIONS:
        return read_header(data)
    unsupported = ImageError("unsupported", "a format that is not decoded here")
    try:
        header = read_header(data)
    except ImageError as error:
        raise error if error.reason == "empty" else unsupported from error
    if header.format == "TIFF":
        raise unsupported
    return header


def _bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # who reads a pipe, or /dev/zero, reads for ever
            raise ImageError("missing_file", "no regular file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError("missing_file", error.strerror or "") from error


# Helpers


_MISSING = " missing"


def _version(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return f"{file.name}{_MISSING}"
    return f"{file.name} {found.st_size} {found.st_mtime_ns}"


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} can't be read ({error.strerror}); change its permissions, or move it away.")


def _note(tally: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(tally.items()) if status != Status.OK)
