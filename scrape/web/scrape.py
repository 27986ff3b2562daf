"""scrape: candidates become records and images, politely, safely, and losing nothing."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.files import remove_leftovers
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.scrape.collection import Collection, Row, Status, Table, open_collection
from dreamloom.scrape.collection.journal import Journal, read_plan
from dreamloom.scrape.collection.parts import make_parts, stale_parts
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.dedup import OF_PICTURES, row_of

_VERSION = 3


def recipes(collection: Collection, config: ScrapeConfig) -> dict[str, str]:
    """Part → recipe: how images are fetched, and of which candidates. Reads the candidates' footers."""
    way = _way(config)
    return {part: f"{way}/{collection.stamp(Table.CANDIDATES, part)}" for part in collection.parts(Table.CANDIDATES)}


def _way(config: ScrapeConfig) -> str:
    return recipe("scrape", _VERSION, config)


def scrape(
    collection: Collection,
    config: ScrapeConfig,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
    retry: Sequence[Status] = (),
) -> Summary:
    """Fetches the images of all parts that are stale, and makes their records.

    Of a part that a kill cut short, the rows that were finished are taken over; of one whose candidates are others now,
    the images that are asked for again. Can be called with or without an event loop running.

    Args:
        parts: only these; None: all.
        retry: also fetch again the rows of these statuses in parts that are done.

    Raises:
        UserError: there are no candidates, or another process works on this collection.
        StageFailed: fewer images came than `min_success_rate`; what came is stored.
        ExceptionGroup: some parts failed; the others are done.
    """
    open_collection(collection.root, Table.CANDIDATES)
    if "00000" not in collection.parts(Table.CANDIDATES):
        raise UserError(f"The candidates in {collection.root} are not complete; run filter again, which was cut short.")
    made_by = recipes(collection, config)
    asked = sorted(made_by) if parts is None else list(parts)

    def work(part: str, progress: Progress) -> tuple[list[Row], Summary]:
        wanted = _wanted(collection, config, made_by, part)
        return _crawled(collection, part, config, {"recipe": made_by[part]}, None, wanted, progress)

    with collection.lock():
        stale = set(stale_parts(collection, Table.RECORDS, made_by)) & set(asked)
        again, seconds = 0, 0.0
        for part in asked:
            if part not in stale and (statuses := _again(collection, config, made_by, part, retry)):
                seconds += _retry(collection, part, config, made_by, statuses, progress)
                again += 1
        total = make_parts(collection, Table.RECORDS, config, made_by, work, progress, parts)
        for part in asked:
            _end_journal(collection, part)
        if parts is None:
            _remove_pictures_of_other_parts(collection, made_by)
    total.parts_done, total.parts_before = total.parts_done + again, total.parts_before - again
    total.seconds += seconds
    came = total.kept + total.dropped.get(Status.DUPLICATE, 0)
    asked_for = total.rows - total.dropped.get(Status.NOT_NEEDED, 0)
    if came < config.min_success_rate * asked_for:
        raise StageFailed(_too_few(collection, config, total))
    return total


def _wanted(collection: Collection, config: ScrapeConfig, made_by: Mapping[str, str], part: str) -> int | None:
    """Pictures that a part may have under the limit, going by what the other parts have; None: there is no limit."""
    if config.limit is None:
        return None
    others = (p for p in made_by if p != part and collection.recipe(Table.RECORDS, p) == made_by[p])
    return max(0, config.limit - sum(collection.summary(Table.RECORDS, other).kept for other in others))


def _again(
    collection: Collection, config: ScrapeConfig, made_by: Mapping[str, str], part: str, retry: Sequence[Status]
) -> set[str]:
    """The statuses of which rows are fetched again in a part that is done: those to retry, and a lower limit's."""
    made = collection.summary(Table.RECORDS, part)
    there = {status for status, count in made.dropped.items() if count} | ({Status.OK} if made.kept else set())
    again: set[str] = there & set(retry)
    wanted = _wanted(collection, config, made_by, part)
    if Status.NOT_NEEDED in there and (wanted is None or wanted > made.kept):
        again.add(Status.NOT_NEEDED)
    return again


def _crawled(
    collection: Collection,
    part: str,
    config: ScrapeConfig,
    plan: dict[str, Any],
    known: dict[str, Row] | None,
    wanted: int | None,
    progress: Progress,
) -> tuple[list[Row], Summary]:
    """The rows of one part.

    Args:
        plan: what they depend on, for the journal.
        known: rows by key that are taken over as they are; None: the part is made anew.
        wanted: images, at most; None: all.
    """
    from dreamloom.scrape.web.img2dataset import fetch_in_bulk
    from dreamloom.scrape.web.part import crawl  # aiohttp, which `--help` does without

    candidates = collection.read(Table.CANDIDATES, part).to_pylist()
    with Journal(_journal_path(collection, part), plan) as journal:
        if known is None:
            known = {}
            for row in _fetched_before(collection, part, config, candidates):
                if row["key"] not in journal.rows:  # noted before a kill, or fetched anew since
                    journal.add(row)
        if config.engine == "img2dataset":
            fetch_in_bulk(collection, part, config, candidates, known, journal, progress)
        rows = crawl(collection, part, config, candidates, known, wanted, journal, progress)
    tally = Counter(row["status"] for row in rows)
    kept = tally.pop(Status.OK, 0)
    stored = sum(row["bytes"] or 0 for row in rows)
    return rows, Summary(rows=len(rows), kept=kept, dropped=dict(sorted(tally.items())), bytes_written=stored)


def _fetched_before(
    collection: Collection, part: str, config: ScrapeConfig, candidates: Sequence[Row]
) -> Iterator[Row]:
    """Rows of images that the part as it lies there has, fetched in the same way for other candidates than now."""
    if (collection.recipe(Table.RECORDS, part) or "").partition("/")[0] != _way(config):
        return
    rows = collection.read(Table.RECORDS, part).to_pylist()
    stored = {row["key"]: row for row in rows if row["status"] == Status.OK}
    for candidate in candidates:
        row = stored.get(candidate["key"])
        said = candidate["sha256"] or candidate["md5"] if config.verify_hash else None
        if row and row["url"] == candidate["url"] and (said or row["sha256"]) == row["sha256"]:
            yield row_of(candidate, {name: row[name] for name in OF_PICTURES})


def _retry(
    collection: Collection,
    part: str,
    config: ScrapeConfig,
    made_by: Mapping[str, str],
    statuses: set[str],
    progress: Progress,
) -> float:
    """Fetches the rows of these statuses again in a part that is done. Returns the seconds it took."""
    begun = time.monotonic()
    remove_leftovers(collection.image_folder(part))
    before = collection.read(Table.RECORDS, part).to_pylist()
    known = {row["key"]: row for row in before if row["status"] not in statuses}
    wanted = _wanted(collection, config, made_by, part) if Status.NOT_NEEDED in statuses else None
    plan = {"recipe": made_by[part], "retry": sorted(statuses), "of": collection.stamp(Table.RECORDS, part)}
    rows, summary = _crawled(collection, part, config, plan, known, wanted, progress)
    summary.seconds, summary.parts_done = time.monotonic() - begun, 1
    collection.write(Table.RECORDS, part, rows, recipe=made_by[part], config=config, summary=summary)
    _end_journal(collection, part)
    return summary.seconds


def _end_journal(collection: Collection, part: str) -> None:
    """Removes the journal of a part that is committed; one of a retry of this very part is not done yet, and stays."""
    path = _journal_path(collection, part)
    if read_plan(path).get("of") != collection.stamp(Table.RECORDS, part):
        path.unlink(missing_ok=True)


def _journal_path(collection: Collection, part: str) -> Path:
    return collection.root / Table.RECORDS / f".journal-{part}.jsonl"


def _remove_pictures_of_other_parts(collection: Collection, parts: Mapping[str, str]) -> None:
    """Of a plan that had more parts. The images are ours: nothing of the user's lies in this folder."""
    for folder in (collection.root / "images").glob("*"):
        if folder.name not in parts:
            shutil.rmtree(folder)


def _too_few(collection: Collection, config: ScrapeConfig, total: Summary) -> str:
    most = sorted(total.dropped.items(), key=lambda item: -item[1])[:3]
    why = ", ".join(f"{count} {status}" for status, count in most)
    return (
        f"Only {total.kept} of {total.rows} images of {collection.root} came ({why}), which is under min_success_rate "
        f"({config.min_success_rate:g}); what came is stored, so retry some statuses, or lower min_success_rate."
    )
