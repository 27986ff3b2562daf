"""Parquet files that hold the bytes of images, a row each, as Hugging Face and img2dataset write them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, recipe
from dreamloom.scrape.collection import CaptionKind, Status, key_of
from dreamloom.scrape.datasets.imagefolder import find_caption_column
from dreamloom.scrape.datasets.ingest import VERSION, MissingImage, ReadPart, SourceImage, file_version
from dreamloom.scrape.datasets.metadata import metadata_from_row
from dreamloom.scrape.index.columns import ALIASES

_PICTURES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")
_BATCH_ROWS = 64
"""Rows in memory at once; each may hold megabytes."""


@dataclass(frozen=True)
class Piece:
    """Rows of a file, from `start` up to and without `end`."""

    file: Path
    start: int
    end: int


@dataclass(frozen=True)
class Columns:
    """Which columns are read; None: found by type and name."""

    image_column: str | None
    caption_column: str | None
    kind: CaptionKind
    """Who wrote the captions; NONE: they are left out."""


Plan = Mapping[str, Sequence[Piece]]
"""Part → the rows in it."""


def plan(files: Sequence[Path], part_rows: int, limit: int | None) -> Plan:
    """Cuts the rows of files that follow one another into parts. Reads the footers.

    Raises:
        UserError: a file can't be read.
    """
    pieces: dict[str, list[Piece]] = {}
    taken = 0
    for file in files:
        rows = _open(file).metadata.num_rows
        start = 0
        while start < rows and (limit is None or taken < limit):
            room = part_rows - taken % part_rows
            end = min(rows, start + room, rows if limit is None else start + limit - taken)
            pieces.setdefault(f"{taken // part_rows:05d}", []).append(Piece(file, start, end))
            taken, start = taken + end - start, end
    return pieces or {"00000": []}


def recipes(stage: str, config: StageConfig, plan: Plan) -> dict[str, str]:
    """Part → recipe."""
    return {
        part: recipe(stage, VERSION, config, [f"{file_version(p.file)} {p.start} {p.end}" for p in pieces])
        for part, pieces in plan.items()
    }


def part_reader(root: Path, plan: Plan, columns: Columns) -> ReadPart:
    """The images of a plan.

    Args:
        root: the folder of the dataset, by whose name and the files' places in it the rows have their keys.
    """

    def items(part: str) -> tuple[int, Iterator[SourceImage]]:
        pieces = plan[part]
        rows = (item for piece in pieces for item in _items(root, piece, columns))
        return sum(piece.end - piece.start for piece in pieces), rows

    return items


def _items(root: Path, piece: Piece, columns: Columns) -> Iterator[SourceImage]:
    parquet = _open(piece.file)
    image = _image_column(piece.file, parquet.schema_arrow, columns.image_column)
    names = parquet.schema_arrow.names
    if columns.caption_column is not None and columns.caption_column not in names:
        raise UserError(f"{piece.file} has no column {columns.caption_column}; it has {', '.join(names)}.")
    text = columns.caption_column or find_caption_column(names)
    wanted = [name for name in names if name in (image, text, "license_url", "author") or name.lower() in _KNOWN]
    identity = (root.resolve().name, piece.file.relative_to(root).as_posix())
    for number, row in _rows(parquet, piece, wanted):
        value = row.pop(image)
        data = value["bytes"] if isinstance(value, dict) else value
        picture = MissingImage(Status.MISSING_FILE, "the row holds no bytes") if data is None else _Bytes(data)
        key = key_of("huggingface", *identity, str(number))
        yield SourceImage(key, f"{piece.file.absolute()}#{number}", picture, metadata_from_row(row, columns.kind, text))


_KNOWN = {alias for ours in ("text", "url", "licence") for alias in ALIASES[ours]}


@dataclass(frozen=True)
class _Bytes:
    data: bytes

    def __call__(self) -> bytes:
        return self.data


def _rows(parquet: pq.ParquetFile, piece: Piece, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a piece with their numbers; row groups outside of it are not read."""
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        number, first = first, first + parquet.metadata.row_group(group).num_rows
        if number >= piece.end or first <= piece.start:
            continue
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            for place in range(max(0, piece.start - number), min(len(batch), piece.end - number)):
                yield number + place, batch.slice(place, 1).to_pylist()[0]
            number += len(batch)


def _image_column(file: Path, schema: pa.Schema, asked: str | None) -> str:
    holding: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    usual = [name for name in _PICTURES if name in holding]
    found = [name for name in holding if name == asked] if asked else usual[:1] or holding
    if len(found) != 1:
        has = f"{'several columns' if found else 'no column'} of images{f' named {asked}' if asked else ''}"
        raise UserError(f"{file} has {has}; it has {', '.join(schema.names)}. Name one as `image_column`.")
    return found[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} can't be read as parquet ({error}); load it again, or take it away.") from error
