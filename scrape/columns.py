"""LAION's many column spellings, mapped at the door: from any index to the columns of a candidate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from base.errors import UserError

ALIASES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "text": ("text", "caption", "top_caption"),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "similarity": (
        "similarity",
        "clip_l14_similarity_score",
        "clip_similarity_vitl14",
        "clip_b32_similarity_score",
        "clip_similarity_vitb32",
    ),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2"),
    "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark", "watermark_score"),
    "language": ("language",),
    "licence": ("license", "licence", "license_type"),
    "md5": ("md5", "md5_hash"),
    "sha256": ("sha256",),
}
"""A candidate's column → its names in LAION, re-LAION, DataComp, COYO, PD12M and laion-coco, in any case; the first
that an index has is taken."""


@dataclass(frozen=True)
class Column:
    """A column of an index, and the SQL by which it is read."""

    name: str
    kind: pa.DataType

    @property
    def text(self) -> str:
        """SQL of its values as text."""
        return f"CAST({self._quoted} AS VARCHAR)"

    @property
    def number(self) -> str:
        """SQL of its values as numbers; null where there is none, or NaN."""
        if pa.types.is_integer(self.kind):
            return self._quoted
        number = self._quoted if pa.types.is_floating(self.kind) else f"TRY_CAST({self._quoted} AS DOUBLE)"
        return f"CASE WHEN NOT isnan({number}) THEN {number} END"

    def compared(self, operator: str, limit: float) -> str:
        """SQL that is true where its number is so by `limit`, seen in the column's own precision.

        The column stands bare in it, so that DuckDB passes over row groups by their statistics.
        """
        if pa.types.is_integer(self.kind):
            return f"{self._quoted} {operator} {limit!r}"
        if not pa.types.is_floating(self.kind):
            return f"TRY_CAST({self._quoted} AS DOUBLE) {operator} {limit!r}"
        kind = "DOUBLE" if pa.types.is_float64(self.kind) else "FLOAT"
        return (
            f"({self._quoted} {operator} {limit!r}::{kind} AND NOT isnan({self._quoted}))"  # NaN is above all numbers
        )

    @property
    def _quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Index:
    """Files that follow one another and spell their columns in one way."""

    files: tuple[Path, ...]
    columns: dict[str, Column]
    """A candidate's column → the index's, where it has one."""
    rows: int


def spelled(names: Iterable[str]) -> dict[str, str]:
    """A candidate's column → which of these names is it, where one is."""
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(name.lower(), name)
    found = {
        ours: next((known[alias] for alias in aliases if alias in known), None) for ours, aliases in ALIASES.items()
    }
    return {ours: name for ours, name in found.items() if name is not None}


def read_indexes(files: Iterable[Path]) -> list[Index]:
    """Reads the footers of parquet files, in order.

    Raises:
        UserError: one is no parquet file, or has no column of URLs.
    """
    footers = [(file, *_footer(file)) for file in files]
    return list(_runs(footers))


def _footer(file: Path) -> tuple[dict[str, Column], int]:
    try:
        schema, rows = pq.read_schema(file), pq.read_metadata(file).num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} can't be read as parquet ({_first_line(error)}); take it out of `index`.") from error
    columns = {ours: Column(name, schema.field(name).type) for ours, name in spelled(schema.names).items()}
    if "url" not in columns:
        raise UserError(
            f"{file} has no column named url (it has {', '.join(schema.names) or 'none'}); name a LAION-style index."
        )
    return columns, rows


def _runs(footers: list[tuple[Path, dict[str, Column], int]]) -> Iterator[Index]:
    for _, run in groupby(footers, key=lambda footer: sorted((k, c.name, str(c.kind)) for k, c in footer[1].items())):
        alike = list(run)
        yield Index(tuple(file for file, _, _ in alike), alike[0][1], sum(rows for _, _, rows in alike))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
