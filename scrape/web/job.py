"""The job of scraping one part, which every step of the work shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.progress import Progress
from dreamloom.scrape.collection import Collection, Row
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.web.config import ScrapeConfig


@dataclass(frozen=True)
class PartJob:
    """One part that is scraped: its candidates, and where finished rows go."""

    collection: Collection
    part: str
    config: ScrapeConfig
    candidates: Sequence[Row]
    existing_rows: Mapping[str, Row]
    """Rows of the records by key that are kept as they are, when only some statuses are retried."""
    max_images: int | None
    """Number of images after which the other candidates are not needed; None: no limit."""
    journal: Journal
    progress: Progress
    num_workers: int = 1
    """Processes that scrape this collection at the same time, this one among them: they share what a host may bear."""

    @property
    def image_folder(self) -> Path:
        """Folder of the part's images."""
        return self.collection.image_folder(self.part)

    @property
    def finished_rows(self) -> dict[str, Row]:
        """Rows by key that need no request: the existing ones and those in the journal."""
        return {**self.existing_rows, **self.journal.rows}
