"""The rows of one part, once all is fetched: which repeat others, which are placeholders, which were not needed.

Rows come in any order and are settled in the order of the candidates, so the table is the same whatever was fast.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

from dreamloom.scrape.collection import CaptionKind, Collection, Row, Status, Table
from dreamloom.scrape.web.outcome import Dropped

if TYPE_CHECKING:
    from dreamloom.scrape.web.config import ScrapeConfig

OF_PICTURES = (
    "image",
    "width",
    "height",
    "original_width",
    "original_height",
    "bytes",
    "sha256",
    "pixels_sha256",
    "consent",
)
"""Columns of the records that tell of the image itself."""
_SAME_PICTURE = (Status.OK, Status.DUPLICATE, Status.PLACEHOLDER)


def row_of(candidate: Row, found: Row, dropped: Dropped | None = None) -> Row:
    """What became of a candidate, as a row of the records.

    Args:
        found: what is known of its image.
    """
    row: Row = {
        "key": candidate["key"],
        "status": str(Status.OK),
        "detail": None,
        "url": candidate["url"],
        "text": candidate["text"],
        "text_kind": str(_kind(candidate)),
        "licence": candidate["licence"],
        "licence_url": candidate.get("licence_url"),
        **dict.fromkeys(OF_PICTURES),
        **found,
    }
    if dropped is not None:
        detail = "".join(c if c.isprintable() else "?" for c in dropped.detail) or None  # headers may hold anything
        row |= {"status": str(dropped.status), "detail": detail, "consent": dropped.consent or row["consent"]}
    return row


def _kind(candidate: Row) -> str:
    if not (candidate["text"] or "").strip():
        return CaptionKind.NONE
    return candidate.get("text_kind") or CaptionKind.ALT


def identities(rows: Iterable[Row | None]) -> dict[str, str]:
    """sha256 of a file → by what its image is known: the hash of its pixels, where there is one, or of the file."""
    known = {row["sha256"]: row["sha256"] for row in rows if row and row["sha256"]}
    return known | {row["sha256"]: row["pixels_sha256"] for row in rows if row and row.get("pixels_sha256")}


def settle(rows: Sequence[Row | None], config: "ScrapeConfig", earlier: Mapping[str, str]) -> list[Row | None]:
    """The rows, of which each that repeats an earlier one's bytes is a duplicate of it, and placeholders are found.

    Args:
        rows: in the order of the candidates; None for one that was not asked.
        earlier: identity → key of the same images in earlier parts.
    """
    known_by = identities(rows)
    placeholders = _placeholders(rows, known_by, config.max_placeholder_copies)
    firsts: dict[str, Row] = {}
    settled: list[Row | None] = []
    for row in rows:
        same = known_by.get(row["sha256"]) if row else None
        if row is None or row["status"] not in _SAME_PICTURE or not same:
            settled.append(row)
        elif same in placeholders:
            settled.append(_without_picture(row, Status.PLACEHOLDER, placeholders[same]))
        elif row["status"] == Status.PLACEHOLDER:
            settled.append(row)
        elif same in earlier:
            settled.append(_without_picture(row, Status.DUPLICATE, f"repeats {earlier[same]}"))
        else:
            first = firsts.setdefault(same, row)
            settled.append(row if first is row else _duplicate(row, first))
    return settled


def cut(
    rows: Sequence[Row | None], wanted: int | None, known: Mapping[str, Row], candidates: Sequence[Row]
) -> list[Row]:
    """The rows up to the last image that is wanted; from there on, those that were not known are not needed.

    What was fetched beyond it is thrown away, lest the table hang on what was fast.
    """
    came, kept = 0, list[Row]()
    for row, candidate in zip(rows, candidates, strict=True):
        enough = wanted is not None and came >= wanted
        if row is None or (enough and row["key"] not in known):
            row = row_of(candidate, {}, Dropped(Status.NOT_NEEDED))
        came += row["status"] == Status.OK
        kept.append(row)
    return kept


def copies_in_earlier_parts(collection: Collection, part: str, wanted: set[str]) -> dict[str, str]:
    """Identity → key, of those of these images that parts before this one have stored."""
    found: dict[str, str] = {}
    names = [name for name in collection.parts(Table.RECORDS) if name < part] if wanted else []
    for name in names:
        rows = collection.read(Table.RECORDS, name, ["key", "status", "sha256", "pixels_sha256"])
        known_by = pc.coalesce(rows["pixels_sha256"], rows["sha256"])
        is_same = pc.is_in(known_by, pa.array(sorted(wanted), pa.string()))
        same = rows.append_column("identity", known_by).filter(pc.and_(pc.equal(rows["status"], Status.OK), is_same))
        for row in same.to_pylist():
            found.setdefault(row["identity"], row["key"])
    return found


def _placeholders(rows: Sequence[Row | None], known_by: Mapping[str, str], copies: int | None) -> dict[str, str]:
    """Identity → a line about it, of bytes that a host gave for many addresses: "this image is not available"."""
    if copies is None:
        return {}
    of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row is not None and row["status"] in _SAME_PICTURE and row["sha256"]:
            of[known_by[row["sha256"]], _host(row["url"])].add(row["url"])
    return {
        same: f"{host} gives it for {len(urls)} addresses"
        for (same, host), urls in sorted(of.items())
        if len(urls) >= copies
    }


def _duplicate(row: Row, first: Row) -> Row:
    sizes = {name: first[name] for name in ("original_width", "original_height")}
    return _without_picture(row, Status.DUPLICATE, f"repeats {first['key']}") | sizes


def _without_picture(row: Row, status: Status, detail: str) -> Row:
    nothing: dict[str, Any] = dict.fromkeys(("image", "width", "height", "bytes"))
    return {**row, **nothing, "status": str(status), "detail": detail}


def _host(url: str | None) -> str:
    try:
        return URL((url or "").strip()).raw_host or ""
    except (ValueError, TypeError):
        return ""
