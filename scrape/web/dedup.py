"""Decides, once a part is fetched, which rows are duplicates, which are placeholders, and which are not needed.

Rows are fetched in any order but decided in the order of the candidates, so the table does not depend on network
timing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

from dreamloom.scrape.collection import Collection, Row, Status, Table, key_of
from dreamloom.scrape.collection.records import FILE_COLUMNS, IMAGE_COLUMNS
from dreamloom.scrape.web.outcome import RowDropped, make_row

_ORIGINAL = ("key", "url", "text", "original_width", "original_height")
"""Columns of an image that others repeat."""
_WITH_BYTES = (Status.OK, Status.DUPLICATE, Status.PLACEHOLDER)


def image_identities(rows: Iterable[Row | None]) -> dict[str, str]:
    """Maps the sha256 of each file to what identifies its image: the hash of its pixels if known, else of the file."""
    identities = {row["sha256"]: row["sha256"] for row in rows if row and row["sha256"]}
    return identities | {row["sha256"]: row["pixels_sha256"] for row in rows if row and row.get("pixels_sha256")}


def mark_copies(rows: Sequence[Row | None], earlier: Mapping[str, Row], max_copies: int | None) -> list[Row | None]:
    """Returns the rows with their copies marked: the first of equal images stays, the others are duplicates of it.

    Other captions of the same address stay as well: they are what the index says of the one image.

    Args:
        rows: in the order of the candidates; None for a candidate that was not requested.
        earlier: identity → row, of equal images in earlier parts.
        max_copies: number of URLs of one host with the same image from which on it is a placeholder; None: never.
    """
    identities = image_identities(rows)
    placeholders = _find_placeholders(rows, identities, max_copies)
    originals: dict[str, Row] = dict(earlier)
    captions = {(row["url"], row["text"]) for row in earlier.values()}
    marked: list[Row | None] = []
    for row in rows:
        identity = identities.get(row["sha256"]) if row else None
        if row is None or row["status"] not in _WITH_BYTES or not identity:
            marked.append(row)
        elif identity in placeholders:
            original = originals.setdefault(identity, row)
            marked.append(_as_copy(row, identity, original, Status.PLACEHOLDER, placeholders[identity]))
        elif row["status"] == Status.PLACEHOLDER:
            marked.append(row)
        else:
            original, caption = originals.setdefault(identity, row), (row["url"], row["text"])
            is_same_image = row["status"] == Status.OK and row["url"] == original["url"]
            is_other_caption = is_same_image and is_caption_of_url(row) and caption not in captions
            captions.add(caption)
            if original is not row and not is_other_caption:
                row = _as_copy(row, identity, original, Status.DUPLICATE, f"repeats {original['key']}")
            marked.append(row)
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


def find_in_earlier_parts(collection: Collection, part: str, identities: set[str]) -> dict[str, Row]:
    """Looks images up in the parts before `part`.

    Returns:
        Identity → key, url, text and size, of the images that those parts have stored.
    """
    found: dict[str, Row] = {}
    earlier = [name for name in collection.parts(Table.RECORDS) if name < part] if identities else []
    for name in earlier:
        rows = collection.read(Table.RECORDS, name, [*_ORIGINAL, "status", "sha256", "pixels_sha256"])
        identity = pc.coalesce(rows["pixels_sha256"], rows["sha256"])
        is_wanted = pc.is_in(identity, pa.array(sorted(identities), pa.string()))
        is_stored = pc.equal(rows["status"], Status.OK)
        for row in rows.append_column("identity", identity).filter(pc.and_(is_stored, is_wanted)).to_pylist():
            found.setdefault(row["identity"], row)
    return found


def find_urls_in_earlier_parts(collection: Collection, part: str, urls: set[str | None]) -> dict[str, Row]:
    """Looks addresses up in the parts before `part`. Returns address → row, of those whose image they have stored."""
    found: dict[str, Row] = {}
    earlier = [name for name in collection.parts(Table.RECORDS) if name < part] if urls else []
    for name in earlier:
        rows = collection.read(Table.RECORDS, name, ["status", "url", *IMAGE_COLUMNS])
        is_wanted = pc.is_in(rows["url"], pa.array(sorted(filter(None, urls)), pa.string()))
        for row in rows.filter(pc.and_(is_wanted, pc.equal(rows["status"], Status.OK))).to_pylist():
            if collection.place.has_image(row["image"]):
                found.setdefault(row["url"], row)
    return found


def is_caption_of_url(row: Row) -> bool:
    """Whether filter took the addresses once per text (`deduplicate_by: url_text`); a key tells what identifies it."""
    return bool(row["key"] == key_of("url", row["url"] or "", row["text"] or ""))


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


def _as_copy(row: Row, identity: str, original: Row, status: Status, detail: str) -> Row:
    """Returns a row without its image; what decoding tells is the original's, as not every copy was decoded."""
    told = {name: original[name] for name in ("original_width", "original_height")}
    told["pixels_sha256"] = None if identity == row["sha256"] else identity
    return {**row, **dict.fromkeys(FILE_COLUMNS), **told, "status": str(status), "detail": detail}


def _host(url: str | None) -> str:
    try:
        return URL((url or "").strip()).raw_host or ""
    except (ValueError, TypeError, IndexError):  # as check_url
        return ""
