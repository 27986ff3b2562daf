"""Scrapes one part: its candidates become rows, and their images are on disk."""

from collections.abc import Mapping, Sequence

from dreamloom.scrape.collection import Row, Status
from dreamloom.scrape.collection.records import settle_images
from dreamloom.scrape.web.crawler import Crawler
from dreamloom.scrape.web.dedup import apply_limit, find_in_earlier_parts, image_identities, mark_copies
from dreamloom.scrape.web.job import PartJob
from dreamloom.scrape.web.shared import share_finished_rows


def fetch_part(job: PartJob) -> list[Row | None]:
    """Fetches the candidates that have no finished row, and journals them; their images are on disk.

    Returns:
        The rows of the candidates, in their order; None of those that are not needed.
    """
    finished = _with_image_on_disk(job, job.finished_rows)
    rows = [finished.get(candidate["key"]) for candidate in job.candidates]
    share_finished_rows(job, rows)
    _fetch(job, rows)
    return rows


def settle_part(job: PartJob, rows: Sequence[Row | None]) -> list[Row]:
    """Decides which of a part's rows are copies, also of images in the parts before it, and which are not needed.

    Returns:
        The rows of all candidates, in their order. Their images are on disk, synced, and the folder holds no others.
    """
    limited = apply_limit(_mark_copies(job, rows), job.max_images, job.existing_rows, job.candidates)
    settle_images(job.image_folder, limited)
    return limited


def _fetch(job: PartJob, rows: list[Row | None]) -> None:
    """Fills the rows that are None, in order, until enough images are stored or no candidate is left."""
    crawler, target = Crawler(job, rows), job.max_images
    while True:
        crawler.fetch(target)
        marked = _mark_copies(job, rows)
        num_requested = rows.index(None) if None in rows else len(rows)
        num_images = sum(row is not None and row["status"] == Status.OK for row in marked[:num_requested])
        if job.max_images is None or target is None or num_requested == len(rows) or num_images >= job.max_images:
            return
        target += job.max_images - num_images  # that many of the fetched images are copies


def _mark_copies(job: PartJob, rows: Sequence[Row | None]) -> list[Row | None]:
    """Marks copies of images in this part and in earlier parts."""
    identities = image_identities(rows)
    stored = {identities[row["sha256"]] for row in rows if row and row["status"] == Status.OK}
    earlier = find_in_earlier_parts(job.collection, job.part, stored)
    return mark_copies(rows, earlier, job.config.max_placeholder_copies)


def _with_image_on_disk(job: PartJob, rows: Mapping[str, Row]) -> dict[str, Row]:
    """Returns the rows by key whose image is on disk, or that of the row that they repeat; a power cut loses files."""

    def is_on_disk(row: Row) -> bool:
        path = job.collection.root / str(row["image"])
        return path.is_file() and path.stat().st_size == int(row["bytes"])

    identities = image_identities(rows.values())
    stored = {identities[row["sha256"]] for row in rows.values() if row["status"] == Status.OK and is_on_disk(row)}
    copies = {identities[row["sha256"]] for row in rows.values() if row["status"] == Status.DUPLICATE}
    stored |= set(find_in_earlier_parts(job.collection, job.part, copies - stored))
    with_image = (Status.OK, Status.DUPLICATE)
    return {
        key: row for key, row in rows.items() if row["status"] not in with_image or identities[row["sha256"]] in stored
    }
