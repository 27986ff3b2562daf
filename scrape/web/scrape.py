"""The scrape stage: candidates become records and images, and no candidate is lost."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.scrape.collection import Collection, Row, Status, Table, open_collection
from dreamloom.scrape.collection.journal import Journal, read_plan
from dreamloom.scrape.collection.parts import make_parts, stale_parts
from dreamloom.scrape.collection.place import Worker
from dreamloom.scrape.collection.records import IMAGE_COLUMNS, summarize_records
from dreamloom.scrape.collection.turns import Order, lease_part
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.job import PartJob
from dreamloom.scrape.web.outcome import make_row

_VERSION = 3
_FEW_INTERNAL_ERRORS, _FEW_INTERNAL_ERRORS_SHARE = 2, 0.01
"""Rows, and share of all rows, with errors of dreamloom's own that a run may have without failing."""


def recipes(collection: Collection, config: ScrapeConfig) -> dict[str, str]:
    """Returns part → recipe, from the config and the stamps of the candidates; reads only their footers."""
    config_recipe = _config_recipe(config)
    parts = collection.parts(Table.CANDIDATES)
    return {part: f"{config_recipe}/{collection.stamp(Table.CANDIDATES, part)}" for part in parts}


def _config_recipe(config: ScrapeConfig) -> str:
    return recipe("scrape", _VERSION, config)


def scrape(
    collection: Collection,
    config: ScrapeConfig,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
    retry: Sequence[Status] = (),
) -> Summary:
    """Downloads the images of all stale parts and writes their records.

    Finished rows of a part that was interrupted are kept; so are the images of a part whose candidates have changed, as
    far as they are still candidates. Can be called with or without a running event loop.

    Args:
        collection: a collection with candidates.
        config: how images are requested and stored.
        progress: receives the number of finished rows.
        parts: only these; None: all.
        retry: statuses whose rows are fetched again in parts that are done.

    Raises:
        UserError: there are no candidates, or another process works on this collection.
        StageFailed: fewer images arrived than `min_success_rate` asks for; those that arrived are stored.
        ExceptionGroup: some parts failed; the others are done.
    """
    open_collection(collection, Table.CANDIDATES)
    if "00000" not in collection.parts(Table.CANDIDATES):
        raise UserError(
            f"The candidates in {collection.where} are incomplete, as filter was interrupted; run filter again."
        )
    wanted = recipes(collection, config)
    requested = sorted(wanted) if parts is None else list(parts)
    with collection.share(Table.RECORDS, wanted) as worker:
        run = _Run(collection, config, wanted, worker)
        order = Order(run.prepare_part if config.limit is None else None)  # of a limit, a part gets what others leave
        retried = run.retry_parts(requested, retry, progress)
        total = make_parts(collection, Table.RECORDS, config, wanted, run.make_part, progress, parts, order=order)
        for part in requested:
            _remove_journal(collection, part)
        if parts is None:
            _remove_images_of_other_parts(collection, wanted)
    total.parts_done, total.parts_before = total.parts_done + len(retried), total.parts_before - len(retried)
    total.seconds += sum(retried)
    _check_internal_errors(collection, total)
    _check_success_rate(collection, config, total)
    return total


@dataclass(frozen=True)
class _Run:
    """One call of the stage."""

    collection: Collection
    config: ScrapeConfig
    recipes: Mapping[str, str]
    """Part → recipe."""
    worker: Worker

    def make_part(self, part: str, progress: Progress) -> tuple[list[Row], Summary]:
        """Scrapes a stale part. Returns its rows and its summary."""
        with self._job(part, progress) as job:
            return _scrape(job)

    def prepare_part(self, part: str, progress: Progress) -> None:
        """Fetches a stale part while those before it are not settled, of which its rows may be copies."""
        with self._job(part, progress) as job:
            _fetch(job)

    @contextmanager
    def _job(self, part: str, progress: Progress) -> Iterator[PartJob]:
        candidates = self.collection.read(Table.CANDIDATES, part).to_pylist()
        with Journal(_journal_path(self.collection, part), {"recipe": self.recipes[part]}) as journal:
            for row in self._reusable_rows(part, candidates):
                if row["key"] not in journal.rows:  # noted before a kill, or fetched since
                    journal.add(row)
            yield PartJob(
                self.collection,
                part,
                self.config,
                candidates,
                {},
                self._max_images(part),
                journal,
                progress,
                self.worker.count(),
            )

    def retry_parts(self, parts: Sequence[str], retry: Sequence[Status], progress: Progress) -> list[float]:
        """Fetches rows again in parts that are not stale, and that no other process has.

        Returns:
            The seconds of each part with such rows.
        """
        stale = set(stale_parts(self.collection, Table.RECORDS, self.recipes))
        seconds = []
        for part in parts:
            if part in stale or not self._statuses_to_retry(part, retry):
                continue
            if leased := lease_part(self.worker, Table.RECORDS, part):
                try:
                    if statuses := self._statuses_to_retry(part, retry):
                        seconds.append(self._retry_part(part, statuses, progress))
                finally:
                    leased.release()
        return seconds

    def _retry_part(self, part: str, statuses: set[str], progress: Progress) -> float:
        """Fetches the rows with these statuses again. Returns the seconds it took."""
        begun = time.monotonic()
        self.collection.place.begin(Table.RECORDS, part)
        candidates = self.collection.read(Table.CANDIDATES, part).to_pylist()
        rows = self.collection.read(Table.RECORDS, part).to_pylist()
        existing = {row["key"]: row for row in rows if row["status"] not in statuses}
        max_images = self._max_images(part) if Status.NOT_NEEDED in statuses else None
        stamp = self.collection.stamp(Table.RECORDS, part)
        plan: dict[str, Any] = {"recipe": self.recipes[part], "retry": sorted(statuses), "of": stamp}
        with Journal(_journal_path(self.collection, part), plan) as journal:
            num_workers = self.worker.count()
            job = PartJob(
                self.collection, part, self.config, candidates, existing, max_images, journal, progress, num_workers
            )
            rows, summary = _scrape(job)
        summary.seconds, summary.parts_done = time.monotonic() - begun, 1
        self.collection.write(Table.RECORDS, part, rows, recipe=self.recipes[part], config=self.config, summary=summary)
        # not _remove_journal: a retry that changes no row keeps the stamp, and its journal would look unfinished
        _journal_path(self.collection, part).unlink(missing_ok=True)
        return summary.seconds

    def _statuses_to_retry(self, part: str, retry: Sequence[Status]) -> set[str]:
        """Returns the statuses to fetch again in a finished part: those of `retry`, and what the limit allows now."""
        summary = self.collection.summary(Table.RECORDS, part)
        present = {status for status, count in summary.dropped.items() if count}
        if summary.kept:
            present.add(Status.OK)
        statuses: set[str] = present & set(retry)
        max_images = self._max_images(part)
        if Status.NOT_NEEDED in present and (max_images is None or max_images > summary.kept):
            statuses.add(Status.NOT_NEEDED)
        return statuses

    def _max_images(self, part: str) -> int | None:
        """Returns the number of images that the limit leaves to a part, after those of other parts; None: no limit."""
        if self.config.limit is None:
            return None
        stored = (
            self.collection.summary(Table.RECORDS, other).kept
            for other in self.recipes
            if other != part and self.collection.recipe(Table.RECORDS, other) == self.recipes[other]
        )
        return max(0, self.config.limit - sum(stored))

    def _reusable_rows(self, part: str, candidates: Sequence[Row]) -> Iterator[Row]:
        """Yields rows for images that the existing part has, fetched by the same config for other candidates."""
        existing_recipe = self.collection.recipe(Table.RECORDS, part) or ""
        if existing_recipe.partition("/")[0] != _config_recipe(self.config):
            return
        rows = self.collection.read(Table.RECORDS, part).to_pylist()
        stored = {row["key"]: row for row in rows if row["status"] == Status.OK}
        for candidate in candidates:
            row = stored.get(candidate["key"])
            expected = candidate["sha256"] or candidate["md5"] if self.config.verify_hash else None
            if row and row["url"] == candidate["url"] and (expected or row["sha256"]) == row["sha256"]:
                yield make_row(candidate, {name: row[name] for name in IMAGE_COLUMNS})


def _scrape(job: PartJob) -> tuple[list[Row], Summary]:
    from dreamloom.scrape.web.part import settle_part

    rows = settle_part(job, _fetch(job))
    return rows, summarize_records(rows)


def _fetch(job: PartJob) -> list[Row | None]:
    from dreamloom.scrape.web.img2dataset import fetch_with_img2dataset
    from dreamloom.scrape.web.part import fetch_part  # imports aiohttp, which `--help` does not need

    if job.config.engine == "img2dataset":
        fetch_with_img2dataset(job)
    return fetch_part(job)


def _remove_journal(collection: Collection, part: str) -> None:
    """Removes the journal of a committed part, unless it is of a retry of this very part, which is unfinished."""
    path = _journal_path(collection, part)
    if read_plan(path).get("of") != collection.stamp(Table.RECORDS, part):
        path.unlink(missing_ok=True)


def _journal_path(collection: Collection, part: str) -> Path:
    return collection.root / Table.RECORDS / f".journal-{part}.jsonl"


def _remove_images_of_other_parts(collection: Collection, parts: Mapping[str, str]) -> None:
    """Removes the images of an older plan that had more parts. No file of the user lies in this folder."""
    for folder in (collection.root / "images").glob("*"):
        if folder.name not in parts and not is_left_out(folder.name):
            shutil.rmtree(folder)


def _check_internal_errors(collection: Collection, total: Summary) -> None:
    count = total.dropped.get(Status.INTERNAL_ERROR, 0)
    if count > max(_FEW_INTERNAL_ERRORS, _FEW_INTERNAL_ERRORS_SHARE * total.rows):
        raise StageFailed(
            f"dreamloom itself failed at {count} of {total.rows} images of {collection.where}; what arrived is stored. "
            "The log has the traceback: please report it. --retry internal_error fetches them once more."
        )


def _check_success_rate(collection: Collection, config: ScrapeConfig, total: Summary) -> None:
    num_arrived = total.kept + total.dropped.get(Status.DUPLICATE, 0)
    num_requested = total.rows - total.dropped.get(Status.NOT_NEEDED, 0)
    if num_arrived >= config.min_success_rate * num_requested:
        return
    most_frequent = sorted(total.dropped.items(), key=lambda item: -item[1])[:3]
    reasons = ", ".join(f"{count} {status}" for status, count in most_frequent)
    raise StageFailed(
        f"Only {total.kept} of {total.rows} images of {collection.where} arrived ({reasons}), less than "
        f"min_success_rate ({config.min_success_rate:g}); what arrived is stored. Retry some statuses, or lower "
        "min_success_rate."
    )
