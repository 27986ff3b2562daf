"""LAION's many column spellings, mapped at the door: from any index to the columns of a candidate."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.scrape.index.files import IndexFile

ALIASES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "text": ("text", "caption", "top_caption"),  # laion-coco has both: alt text, and BLIP's
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
    "punsafe": ("punsafe", "nsfw_score_opennsfw2", "nsfw_score_gantman", "nsfw"),
    "pwatermark": ("pwatermark", "watermark_score"),
    "language": ("language",),
    "licence": ("license", "licence", "license_type"),
    "md5": ("md5", "md5_hash"),
    "sha256": ("sha256",),
}
"""A candidate's column → its names in LAION, re-LAION, DataComp, COYO, PD12M and laion-coco, in any case; the first
that an index has is taken."""


_V2 = ("aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2")
"""Columns of aesthetic scores that are V2's for sure; what is called `aesthetic` may be either's."""

_NSFW = {"UNLIKELY": 0.0, "UNSURE": 0.5, "NSFW": 1.0}
"""LAION-400M's and raw LAION-5B's tags, as probabilities."""


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
        number = self._quoted if pa.types.is_floating(self.kind) else self._parsed
        return f"CASE WHEN NOT isnan({number}) THEN {number} END"

    def compared(self, operator: str, limit: float) -> str:
        """SQL that is true where its number is so by `limit`, seen in the column's own precision.

        The column stands bare in it, so that DuckDB passes over row groups by their statistics.
        """
        if pa.types.is_integer(self.kind):
            return f"{self._quoted} {operator} {limit!r}"
        if not pa.types.is_floating(self.kind):
            return f"{self._parsed} {operator} {limit!r}"
        kind = "DOUBLE" if pa.types.is_float64(self.kind) else "FLOAT"
        return (
            f"({self._quoted} {operator} {limit!r}::{kind} AND NOT isnan({self._quoted}))"  # NaN is above all numbers
        )

    @property
    def scale(self) -> str | None:
        """Of aesthetic scores: "v2", or None where the name does not say."""
        return "v2" if self.name.lower() in _V2 else None

    @property
    def _parsed(self) -> str:
        """SQL of the numbers that its texts are."""
        if self.name.lower() != "nsfw":
            return f"TRY_CAST({self._quoted} AS DOUBLE)"
        tags = " ".join(f"WHEN '{tag}' THEN {number}::DOUBLE" for tag, number in _NSFW.items())
        return f"CASE upper({self._quoted}) {tags} END"

    @property
    def _quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Index:
    """Files that follow one another and spell their columns in one way."""

    files: tuple[IndexFile, ...]
    columns: dict[str, Column]
    """A candidate's column → the index's, where it has one."""
    rows: int


def match_columns(names: Iterable[str]) -> dict[str, str]:
    """A candidate's column → which of these names is it, where one is."""
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(name.lower(), name)
    found = {
        ours: next((known[alias] for alias in aliases if alias in known), None) for ours, aliases in ALIASES.items()
    }
    return {ours: name for ours, name in found.items() if name is not None}


def read_indexes(files: Iterable[IndexFile], text: str | None = None, scale: str | None = None) -> list[Index]:
    """Reads the footers of parquet files, in order.

    Args:
        text: the column of captions; None: the first of the usual names that a file has.
        scale: "v1" or "v2": of several columns of aesthetic scores that of this scale is taken.

    Raises:
        UserError: one is no parquet file, or has no column of URLs, or not the one named.
    """
    with ThreadPoolExecutor(8) as pool:  # far files answer late
        footers = list(pool.map(lambda file: (file, *_footer(file, text, scale)), files))
    return list(_runs(footers))


def _footer(file: IndexFile, text: str | None, scale: str | None) -> tuple[dict[str, Column], int]:
    try:
        metadata = file.metadata()
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last for names that are damaged
        raise UserError(f"{file} can't be read as parquet ({_first_line(error)}); take it out of `index`.") from error
    names = match_columns(schema.names)
    if scale == "v2":
        names["aesthetic"] = next((name for name in schema.names if name.lower() in _V2), names.get("aesthetic", ""))
    if text is not None:
        names["text"] = next((name for name in schema.names if name.lower() == text.lower()), "")
    columns = {ours: Column(name, schema.field(name).type) for ours, name in names.items() if name}
    for needed, called in [("url", "url"), *([("text", text)] if text else [])]:
        if needed not in columns:
            raise UserError(
                f"{file} has no column named {called} (it has {', '.join(schema.names) or 'none'}); name a LAION-style "
                "index, or its columns."
            )
    return columns, metadata.num_rows


def _runs(footers: list[tuple[IndexFile, dict[str, Column], int]]) -> Iterator[Index]:
    def alike(footer: tuple[IndexFile, dict[str, Column], int]) -> tuple[bool, list[tuple[str, str, str]]]:
        return footer[0].store is None, sorted((ours, c.name, str(c.kind)) for ours, c in footer[1].items())

    for _, run in groupby(footers, key=alike):
        same = list(run)
        yield Index(tuple(file for file, _, _ in same), same[0][1], sum(rows for _, _, rows in same))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
