"""Decides, once a part is fetched, which rows are duplicates, which are placeholders, and which are not needed.

Rows are fetched in any order but decided in the order of the candidates, so the table does not depend on network
timing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

from dreamloom.scrape.collection import Collection, Row, Status, Table
from dreamloom.scrape.web.outcome import RowDropped, make_row

_WITH_BYTES = (Status.OK, Status.DUPLICATE, Status.PLACEHOLDER)


def image_identities(rows: Iterable[Row | None]) -> dict[str, str]:
    """Maps the sha256 of each file to what identifies its image: the hash of its pixels if known, else of the file."""
    identities = {row["sha256"]: row["sha256"] for row in rows if row and row["sha256"]}
    return identities | {row["sha256"]: row["pixels_sha256"] for row in rows if row and row.get("pixels_sha256")}


def mark_copies(rows: Sequence[Row | None], earlier: Mapping[str, str], max_copies: int | None) -> list[Row | None]:
    """Returns the rows with their copies marked: the first of equal images stays, the others are duplicates of it.

    Args:
        rows: in the order of the candidates; None for a candidate that was not requested.
        earlier: identity → key, of equal images in earlier parts.
        max_copies: number of URLs of one host with the same image from which on it is a placeholder; None: never.
    """
    identities = image_identities(rows)
    placeholders = _find_placeholders(rows, identities, max_copies)
    originals: dict[str, Row] = {}
    marked: list[Row | None] = []
    for row in rows:
        identity = identities.get(row["sha256"]) if row else None
        if row is None or row["status"] not in _WITH_BYTES or not identity:
            marked.append(row)
        elif identity in placeholders:
            marked.append(_without_image(row, Status.PLACEHOLDER, placeholders[identity]))
        elif row["status"] == Status.PLACEHOLDER:
            marked.append(row)
        elif identity in earlier:
            marked.append(_without_image(row, Status.DUPLICATE, f"repeats {earlier[identity]}"))
        else:
            original = originals.setdefault(identity, row)
            marked.append(row if original is row else _duplicate(row, original))
    return marked


def apply_limit(
    rows: Sequence[Row | None], max_images: int | None, existing_rows: Mapping[str, Row], candidates: Sequence[Row]
) -> list[Row]:
    """Returns the rows with all after the last wanted image marked as not needed, except existing ones.

    Images fetched past the limit are discarded, so that the table does not depend on network timing.

    Args:
        rows: of the candidates, in their order; None becomes a row that is not needed.
        max_images: None: no limit.
        existing_rows: rows by key that are kept as they are.
        candidates: rows of the candidates.
    """
    num_images, limited = 0, list[Row]()
    for row, candidate in zip(rows, candidates, strict=True):
        is_full = max_images is not None and num_images >= max_images
        if row is None or (is_full and row["key"] not in existing_rows):
            row = make_row(candidate, {}, RowDropped(Status.NOT_NEEDED))
        num_images += row["status"] == Status.OK
        limited.append(row)
    return limited


def find_in_earlier_parts(collection: Collection, part: str, identities: set[str]) -> dict[str, str]:
    """Looks images up in the parts before `part`.

    Returns:
        Identity → key, of the images that those parts have stored.
    """
    keys: dict[str, str] = {}
    earlier = [name for name in collection.parts(Table.RECORDS) if name < part] if identities else []
    for name in earlier:
        rows = collection.read(Table.RECORDS, name, ["key", "status", "sha256", "pixels_sha256"])
        identity = pc.coalesce(rows["pixels_sha256"], rows["sha256"])
        is_wanted = pc.is_in(identity, pa.array(sorted(identities), pa.string()))
        is_stored = pc.equal(rows["status"], Status.OK)
        for row in rows.append_column("identity", identity).filter(pc.and_(is_stored, is_wanted)).to_pylist():
            keys.setdefault(row["identity"], row["key"])
    return keys


def _find_placeholders(
    rows: Sequence[Row | None], identities: Mapping[str, str], max_copies: int | None
) -> dict[str, str]:
    """Finds images that a host returns for many URLs, such as "this image is not available"; identity → a line."""
    if max_copies is None:
        return {}
    urls_by_image: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row is not None and row["status"] in _WITH_BYTES and row["sha256"]:
            urls_by_image[identities[row["sha256"]], _host(row["url"])].add(row["url"])
    return {
        identity: f"{host} gives it for {len(urls)} addresses"
        for (identity, host), urls in sorted(urls_by_image.items())
        if len(urls) >= max_copies
    }


def _duplicate(row: Row, original: Row) -> Row:
    sizes = {name: original[name] for name in ("original_width", "original_height")}
    return _without_image(row, Status.DUPLICATE, f"repeats {original['key']}") | sizes


def _without_image(row: Row, status: Status, detail: str) -> Row:
    cleared: dict[str, Any] = dict.fromkeys(("image", "width", "height", "bytes"))
    return {**row, **cleared, "status": str(status), "detail": detail}


def _host(url: str | None) -> str:
    try:
        return URL((url or "").strip()).raw_host or ""
    except (ValueError, TypeError):
        return ""
