"""Parquet and Arrow files that contain the bytes of images, one per row, as Hugging Face and img2dataset write them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import CAPTION_COLUMNS
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table, key_of
from dreamloom.scrape.datasets.img2dataset_errors import why_no_image
from dreamloom.scrape.datasets.ingest import MissingImage, ReadPart, SourceImage
from dreamloom.scrape.datasets.metadata import CaptionRules, ImageMetadata, metadata_from_row
from dreamloom.scrape.datasets.row_files import RowFile
from dreamloom.scrape.datasets.source_recipes import SourceRecipes, file_version
from dreamloom.scrape.index.columns import ALIASES

_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")


@dataclass(frozen=True)
class Piece:
    """Rows of a file, from `start` up to but not including `end`."""

    file: Path
    start: int
    end: int


Plan = Mapping[str, Sequence[Piece]]
"""Part → its rows."""


def plan_parts(files: Sequence[Path], part_rows: int, limit: int | None) -> Plan:
    """Divides the rows of consecutive files into parts. Reads the footers.

    Args:
        files: the files, in order.
        part_rows: rows per part.
        limit: maximum number of rows, the first ones; None: all.

    Raises:
        UserError: a file can't be read.
    """
    pieces: dict[str, list[Piece]] = {}
    planned = 0
    for file in files:
        rows = RowFile(file).num_rows
        start = 0
        while start < rows and (limit is None or planned < limit):
            room = part_rows - planned % part_rows
            end = min(rows, start + room, rows if limit is None else start + limit - planned)
            pieces.setdefault(f"{planned // part_rows:05d}", []).append(Piece(file, start, end))
            planned, start = planned + end - start, end
    return pieces or {"00000": []}


def recipes(collection: Collection, stage: str, config: StageConfig, root: Path, plan: Plan) -> SourceRecipes:
    """Returns part → recipe; see `part_reader`."""
    made_from = {
        part: [
            file_version(p.file, before=f"{' '.join(_identity(root, p.file))} ", after=f" {p.start} {p.end}")
            for p in pieces
        ]
        for part, pieces in plan.items()
    }
    return SourceRecipes(collection, Table.RECORDS, stage, config, made_from)


def part_reader(root: Path, plan: Plan, image_column: str | None, captions: CaptionRules) -> ReadPart:
    """Returns a function that reads the images of a part.

    Args:
        root: the dataset's folder; keys are made from its name and the places of rows in its files.
        plan: the rows of each part.
        image_column: the column of images; None: found by type and name.
        captions: which captions are taken.
    """

    def read_part(part: str) -> tuple[int, Iterator[SourceImage]]:
        pieces = plan[part]
        images = (image for piece in pieces for image in _read_images(root, piece, image_column, captions))
        return sum(piece.end - piece.start for piece in pieces), images

    return read_part


def unread_captions(file: Path, captions: CaptionRules) -> str | None:
    """Returns a sentence about columns that may hold captions, where none has a usual name; None: all is well.

    Raises:
        UserError: the file can't be read.
    """
    schema = RowFile(file).schema
    if captions.column or captions.kind is CaptionKind.NONE or {n.lower() for n in schema.names} & {*CAPTION_COLUMNS}:
        return None
    others = [field.name for field in schema if _may_hold_text(field.type)]
    if not others:
        return None
    return f"{file} has no column of captions by a usual name; it has {', '.join(others)}. Name one as caption_column."


def _may_hold_text(data_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(data_type):
        return _may_hold_text(data_type.value_type)
    is_text = pa.types.is_string(data_type) or pa.types.is_large_string(data_type)
    return is_text or (pa.types.is_nested(data_type) and not _holds_bytes(data_type))


def _identity(root: Path, file: Path) -> tuple[str, str]:
    """Returns what keys of a file's rows are made of: the dataset's name and the file's in it, so it may be moved."""
    return root.resolve().name, file.relative_to(root).as_posix()


def _read_images(root: Path, piece: Piece, image_column: str | None, captions: CaptionRules) -> Iterator[SourceImage]:
    row_file = RowFile(piece.file)
    image_column = _find_image_column(piece.file, row_file.schema, image_column)
    names = row_file.schema.names
    caption_column = captions.column
    outer = None if caption_column is None or caption_column in names else caption_column.partition(".")[0]
    if outer is not None and outer not in names:
        raise UserError(f"{piece.file} has no column {caption_column}; it has {', '.join(names)}.")
    needed = {image_column, caption_column, outer, "license_url", "author", "status", "error_message"}
    wanted = [name for name in names if name in needed or name.lower() in _METADATA_COLUMNS]
    identity = _identity(root, piece.file)
    for number, row in row_file.read(piece.start, piece.end, wanted):
        key, place = key_of("huggingface", *identity, str(number)), f"{piece.file.absolute()}#{number}"
        if row is None:
            yield SourceImage(key, place, MissingImage(Status.TRUNCATED, "the file is damaged here"), ImageMetadata())
            continue
        value = row.pop(image_column)
        data = value.get("bytes") if isinstance(value, dict) else value
        missing = MissingImage(*why_no_image(row, "the row holds no bytes"))
        content = _Bytes(data) if isinstance(data, bytes) else missing
        try:
            metadata = metadata_from_row(row, captions)
        except DocumentError as error:
            raise UserError(f"{piece.file}: {error} as caption_column.") from error
        yield SourceImage(key, place, content, metadata)


_METADATA_COLUMNS = {*CAPTION_COLUMNS, *ALIASES["url"], *ALIASES["licence"]}


@dataclass(frozen=True)
class _Bytes:
    data: bytes

    def __call__(self) -> bytes:
        return self.data


def _find_image_column(file: Path, schema: pa.Schema, name: str | None) -> str:
    of_bytes: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    usual = [column for column in _IMAGE_COLUMNS if column in of_bytes]
    matches = [column for column in of_bytes if column == name] if name else usual[:1] or of_bytes
    if len(matches) != 1:
        problem = f"{'several columns' if matches else 'no column'} of images{f' named {name}' if name else ''}"
        raise UserError(f"{file} has {problem}; it has {', '.join(schema.names)}. Name one as `image_column`.")
    return matches[0]


def _holds_bytes(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return bool(data_type.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))
