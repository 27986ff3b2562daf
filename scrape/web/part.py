"""One part's candidates → its rows, whose images are on the disk."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dreamloom.base.files import fsync, fsync_all
from dreamloom.base.progress import Progress
from dreamloom.scrape.collection import Collection, Row, Status
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.web.crawler import Crawler
from dreamloom.scrape.web.dedup import copies_in_earlier_parts, cut, identities, settle

if TYPE_CHECKING:
    from dreamloom.scrape.web.config import ScrapeConfig


def crawl(
    collection: Collection,
    part: str,
    config: "ScrapeConfig",
    candidates: Sequence[Row],
    known: dict[str, Row],
    wanted: int | None,
    journal: Journal,
    progress: Progress,
) -> list[Row]:
    """Fetches what is neither known nor in the journal, and gives the rows of all candidates in their order.

    Args:
        known: rows by key, of an earlier table.
        wanted: images, at most; what comes after the last of them in the candidates' order is not needed. None: all.
    """
    there = usable(collection, part, {**known, **journal.rows})
    rows = [there.get(candidate["key"]) for candidate in candidates]
    crawler, target = Crawler(collection, part, config, candidates, rows, journal, progress), wanted
    while True:
        crawler.fetch(target)
        settled = settled_rows(collection, part, config, rows)
        asked = rows.index(None) if None in rows else len(rows)
        kept = sum(row is not None and row["status"] == Status.OK for row in settled[:asked])
        if wanted is None or target is None or asked == len(rows) or kept >= wanted:
            break
        target += wanted - kept  # so many of those that came are copies
    final = cut(settled, wanted, known, candidates)
    keep_only(collection, part, final)
    return final


def usable(collection: Collection, part: str, rows: dict[str, Row]) -> dict[str, Row]:
    """The rows whose image is there, which a power cut may have taken, or that of the row which they repeat."""

    def is_there(row: Row) -> bool:
        path = collection.root / str(row["image"])
        return path.is_file() and path.stat().st_size == int(row["bytes"])

    known_by = identities(rows.values())
    stored = {known_by[row["sha256"]] for row in rows.values() if row["status"] == Status.OK and is_there(row)}
    copies = {known_by[row["sha256"]] for row in rows.values() if row["status"] == Status.DUPLICATE}
    stored |= set(copies_in_earlier_parts(collection, part, copies - stored))
    needed = (Status.OK, Status.DUPLICATE)
    return {key: row for key, row in rows.items() if row["status"] not in needed or known_by[row["sha256"]] in stored}


def settled_rows(
    collection: Collection, part: str, config: "ScrapeConfig", rows: Sequence[Row | None]
) -> list[Row | None]:
    """`settle`, with the images of earlier parts looked up."""
    known_by = identities(rows)
    came = {known_by[row["sha256"]] for row in rows if row and row["status"] == Status.OK}
    return settle(rows, config, copies_in_earlier_parts(collection, part, came))


def keep_only(collection: Collection, part: str, rows: Sequence[Row]) -> None:
    """Sees to it that the part's images are on the disk, and that no others lie there (duplicates, an older plan)."""
    folder = collection.image_folder(part)
    names = {row["image"].rpartition("/")[2] for row in rows if row["image"]}
    for path in folder.glob("*"):
        if path.name not in names:
            path.unlink()
    fsync_all(folder / name for name in sorted(names))
    if names:
        fsync(folder)
