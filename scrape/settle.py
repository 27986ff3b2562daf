"""The rows of one part, once all is fetched: which repeat others, which are placeholders, which were not needed.

Rows come in any order and are settled in the order of the candidates, so the table is the same whatever was fast.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

from scrape.collection import CaptionKind, Collection, Status, Table
from scrape.dropped import Dropped
from scrape.journal import Row

if TYPE_CHECKING:
    from scrape.download import ScrapeConfig

_OF_PICTURES = (
    "image",
    "width",
    "height",
    "original_width",
    "original_height",
    "bytes",
    "sha256",
    "consent",
)
_SAME_PICTURE = (Status.OK, Status.DUPLICATE, Status.PLACEHOLDER)


def row_of(candidate: Row, found: Row, dropped: Dropped | None = None) -> Row:
    """What became of a candidate, as a row of the records.

    Args:
        found: what is known of its picture.
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
        **dict.fromkeys(_OF_PICTURES),
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


def settle(rows: Sequence[Row | None], config: "ScrapeConfig", earlier: Mapping[str, str]) -> list[Row | None]:
    """The rows, of which each that repeats an earlier one's bytes is a duplicate of it, and placeholders are found.

    Args:
        rows: in the order of the candidates; None for one that was not asked.
        earlier: sha256 → key of the pictures of earlier parts that have the same bytes.
    """
    placeholders = _placeholders(rows, config.placeholder_copies)
    firsts: dict[str, Row] = {}
    settled: list[Row | None] = []
    for row in rows:
        sha256 = row["sha256"] if row else None
        if row is None or row["status"] not in _SAME_PICTURE or not sha256:
            settled.append(row)
        elif sha256 in placeholders:
            settled.append(_without_picture(row, Status.PLACEHOLDER, placeholders[sha256]))
        elif row["status"] == Status.PLACEHOLDER:
            settled.append(row)
        elif sha256 in earlier:
            settled.append(_without_picture(row, Status.DUPLICATE, f"repeats {earlier[sha256]}"))
        else:
            first = firsts.setdefault(sha256, row)
            settled.append(row if first is row else _duplicate(row, first))
    return settled


def cut(
    rows: Sequence[Row | None], wanted: int | None, known: Mapping[str, Row], candidates: Sequence[Row]
) -> list[Row]:
    """The rows up to the last picture that is wanted; from there on, those that were not known are not needed.

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


def copies_in_earlier_parts(collection: Collection, part: str, sha256s: set[str]) -> dict[str, str]:
    """sha256 → key, of the pictures that parts before this one have stored."""
    found: dict[str, str] = {}
    wanted = pa.array(sorted(sha256s), pa.string())
    for name in collection.parts(Table.RECORDS):
        if name >= part or not len(wanted):
            continue
        rows = collection.read(Table.RECORDS, name, ["key", "status", "sha256"])
        same = rows.filter(pc.and_(pc.equal(rows["status"], Status.OK), pc.is_in(rows["sha256"], wanted)))
        for row in same.to_pylist():
            found.setdefault(row["sha256"], row["key"])
    return found


def _placeholders(rows: Sequence[Row | None], copies: int | None) -> dict[str, str]:
    """sha256 → a line about it, of bytes that a host gave for many addresses: "this picture is not available"."""
    if copies is None:
        return {}
    of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row is not None and row["status"] in _SAME_PICTURE and row["sha256"]:
            of[row["sha256"], _host(row["url"])].add(row["url"])
    return {
        sha256: f"{host} gives it for {len(urls)} addresses"
        for (sha256, host), urls in sorted(of.items())
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
