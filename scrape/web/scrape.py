"""scrape: candidates become records and images, politely, safely, and losing nothing."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.files import sweep
from dreamloom.base.pixels import MAX_PIXELS
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import NO_RECIPE, StageConfig, Summary, recipe
from dreamloom.scrape.collection import Collection, Status, Table, open_collection
from dreamloom.scrape.collection.journal import Journal, Row, plan_of
from dreamloom.scrape.collection.parts import make_parts, stale_parts
from dreamloom.scrape.web.dedup import OF_PICTURES, row_of

_VERSION = 3


class ScrapeConfig(StageConfig):
    """How images are asked for, and as what they are stored.

    Fields that say how hard to try (times, retries, how many at once) are no part of the recipe: images that came are
    not fetched again for a longer time limit. To fetch those that did not come, name their statuses to `retry`.
    """

    timeout_s: Annotated[float, NO_RECIPE] = Field(
        30.0, gt=0, description="Seconds for one address, from first to last byte, redirects too."
    )
    connect_timeout_s: Annotated[float, NO_RECIPE] = Field(10.0, gt=0, description="Seconds to connect.")
    retries: Annotated[int, NO_RECIPE] = Field(
        1, ge=0, le=10, description="Further tries, in this run, of what may be over in seconds."
    )
    concurrency: Annotated[int, NO_RECIPE] = Field(128, ge=1, le=1024, description="Addresses asked at once.")
    per_host: Annotated[int, NO_RECIPE] = Field(4, ge=1, le=64, description="Of these, of one host.")
    delay_s: Annotated[float, NO_RECIPE] = Field(
        0.0, ge=0, le=60, description="Seconds from one request to a host to the next, at least."
    )
    give_up_after: Annotated[int | None, NO_RECIPE] = Field(
        5,
        ge=1,
        description="Requests to a host without an answer, in a row, after which it is left alone; null: never.",
    )
    limit: Annotated[int | None, NO_RECIPE] = Field(
        None, ge=1, description="Pictures wanted of a collection; null: all that can be had."
    )
    threads: Annotated[int, NO_RECIPE] = Field(0, ge=0, description="Threads that decode images; 0: one a core.")
    engine: Annotated[Literal["own", "img2dataset"], NO_RECIPE] = Field(
        "own", description="What fetches: dreamloom itself, or img2dataset 1.47 first, which can use many machines."
    )
    distributor: Annotated[Literal["multiprocessing", "pyspark", "ray"], NO_RECIPE] = Field(
        "multiprocessing", description="What runs img2dataset's processes: this machine, or a Spark or Ray cluster."
    )
    processes: Annotated[int, NO_RECIPE] = Field(
        0,
        ge=0,
        description="Processes of img2dataset, which share `concurrency`; 0: one a core. Spark and Ray run as many as "
        "they like.",
    )
    contact: Annotated[str, NO_RECIPE] = Field(
        "", description="A page or mail address for those who wonder who asks; part of User-Agent."
    )
    min_success: Annotated[float, NO_RECIPE] = Field(
        0.1, ge=0, le=1, description="Share of images that must come, lest the stage fail."
    )

    max_bytes: int = Field(32 * 2**20, ge=1, description="Bytes of an image's file, at most, packed and unpacked.")
    max_redirects: int = Field(5, ge=0, le=20, description="Redirects followed.")
    obey_optout: bool = Field(
        True, description="Heed robots.txt, X-Robots-Tag, TDM-Reservation, C2PA and IPTC refusals."
    )
    verify_hash: bool = Field(True, description="Leave out images whose md5 or sha256 is not that of the index.")
    allow_private: bool = Field(False, description="Also ask addresses of this machine and of private networks.")

    max_pixels: int = Field(MAX_PIXELS, ge=1, le=2 * MAX_PIXELS, description="Pixels, at most, asked before decoding.")
    min_side: int = Field(256, ge=1, description="Shorter side, at least, in pixels.")
    max_aspect: float | None = Field(3.0, ge=1, description="Longer side by shorter side, at most; null: any shape.")
    placeholder_copies: int | None = Field(
        5, ge=2, description="Addresses of one host with the same image, which is then none; null: any number."
    )
    hash_pixels: bool = Field(
        False, description="Find equal images in unequal files, too: a hash of all pixels, for a full decode of each."
    )
    animated: Literal["reject", "first"] = Field(
        "reject", description="Animations: leave out, or take the first frame."
    )
    shrink_to: int | None = Field(
        1024, ge=1, description="Shorter side, in pixels, above which is shrunk; null: never."
    )
    format: Literal["jpeg", "webp", "png"] = Field("jpeg", description="Of images that can't be kept as they came.")
    quality: int = Field(95, ge=1, le=100, description="Of JPEG and WebP.")
    background: str = Field("white", description="Colour under transparent pixels: a name, or #rrggbb.")

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        from PIL import ImageColor

        ImageColor.getrgb(value)
        return value


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
        StageFailed: fewer images came than `min_success`; what came is stored.
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
    if came < config.min_success * asked_for:
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
    sweep(collection.image_folder(part))
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
    if plan_of(path).get("of") != collection.stamp(Table.RECORDS, part):
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
        f"Only {total.kept} of {total.rows} images of {collection.root} came ({why}), which is under min_success "
        f"({config.min_success:g}); what came is stored, so retry some statuses, or lower min_success."
    )
