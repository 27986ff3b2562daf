"""Candidates with one address, as an index has them for several captions of an image: one download serves them all."""

from collections.abc import Hashable
from pathlib import Path

from dreamloom.base.files.atomic import commit, link
from dreamloom.scrape.collection import Row, Status
from dreamloom.scrape.collection.records import IMAGE_COLUMNS
from dreamloom.scrape.web.dedup import find_urls_in_earlier_parts, is_caption_of_url
from dreamloom.scrape.web.job import PartJob
from dreamloom.scrape.web.outcome import RowDropped, make_row


def source_of(candidate: Row) -> Hashable:
    """Returns what candidates must have in common to get the same image, or fail alike."""
    return candidate["url"], candidate["sha256"], candidate["md5"]


def share_row(job: PartJob, candidate: Row, row: Row) -> Row:
    """Makes the row of a candidate from that of another with the same source; its image is a link to the other's."""
    columns = {name: row[name] for name in IMAGE_COLUMNS}
    if row["status"] != Status.OK:
        return make_row(candidate, columns, RowDropped(Status(row["status"]), row["detail"] or ""))
    image = job.collection.image(row["image"])
    path = job.image_folder / f"{candidate['key']}{Path(row['image']).suffix}"
    with commit(path, sync=False) as temporary:
        if isinstance(image, bytes):
            temporary.write_bytes(image)
        else:
            link(image, temporary)
    return make_row(candidate, columns | {"image": f"images/{job.part}/{path.name}"})


def share_finished_rows(job: PartJob, rows: list[Row | None]) -> None:
    """Fills the rows, of those that are None, whose image another row of this part or an earlier one has."""
    finished = {
        source_of(candidate): row
        for candidate, row in zip(job.candidates, rows, strict=True)
        if row is not None and row["status"] != Status.NOT_NEEDED
    }
    missing = [(place, job.candidates[place]) for place, row in enumerate(rows) if row is None]
    urls = {candidate["url"] for _, candidate in missing if is_caption_of_url(candidate)}
    earlier = find_urls_in_earlier_parts(job.collection, job.part, urls)
    for place, candidate in missing:
        row = finished.get(source_of(candidate))
        if row is None and not (job.config.verify_hash and (candidate["sha256"] or candidate["md5"])):
            row = earlier.get(candidate["url"])
        if row is not None:
            shared = rows[place] = share_row(job, candidate, row)
            job.journal.add(shared)
