"""One part's addresses → its rows: fetched side by side, decoded in threads, and written down as each is finished.

Rows come in any order and are settled in the order of the candidates, so the table is the same whatever was fast.
"""

import asyncio
import hashlib
import os
import random
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from yarl import URL

from base.files import commit
from base.progress import Progress
from scrape.collection import CaptionKind, Collection, Status
from scrape.dropped import Dropped
from scrape.fetch import Fetched, Fetcher
from scrape.journal import Journal, Row
from scrape.store import make_picture
from scrape.turns import Turns

if TYPE_CHECKING:
    from scrape.download import ScrapeConfig

_PASSING = {Status.DNS_TEMPORARY, Status.CONNECTION, Status.SHORT_BODY, Status.HTTP_429, Status.HTTP_5XX}
"""What may be over in seconds."""
_LONGEST_WAIT_S = 30.0
"""A host that wants to be left alone for longer is, and its row can be fetched again in another run."""

_SYNCS = 16


def crawl(
    collection: Collection,
    part: str,
    config: "ScrapeConfig",
    candidates: Sequence[Row],
    known: dict[str, Row],
    journal: Journal,
    progress: Progress,
) -> list[Row]:
    """Fetches what is neither known nor in the journal, and gives the rows of all candidates in their order.

    Args:
        known: rows by key, of an earlier table.
    """
    there = _usable(collection, {**known, **journal.rows})
    rows = [there.get(candidate["key"]) for candidate in candidates]
    run = _Crawl(collection, part, config, candidates, rows, journal, progress)
    if not all(rows):
        _run(run.fetch_all())
    settled = run.settled()
    _keep_only(collection, part, settled)
    return settled


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, in a thread of its own where this one has a loop that runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _usable(collection: Collection, rows: dict[str, Row]) -> dict[str, Row]:
    """The rows whose picture is there, which a power cut may have taken, or that of the row which they repeat."""

    def is_there(row: Row) -> bool:
        path = collection.root / str(row["image"])
        return path.is_file() and path.stat().st_size == int(row["bytes"])

    stored = {row["sha256"] for row in rows.values() if row["status"] == Status.OK and is_there(row)}
    needed = (Status.OK, Status.DUPLICATE)
    return {key: row for key, row in rows.items() if row["status"] not in needed or row["sha256"] in stored}


class _Job(NamedTuple):
    place: int
    tried: int


class _Crawl:
    """The state of one part while it is fetched."""

    def __init__(
        self,
        collection: Collection,
        part: str,
        config: "ScrapeConfig",
        candidates: Sequence[Row],
        rows: list[Row | None],
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._collection, self._part, self._config = collection, part, config
        self._candidates, self._rows, self._journal, self._progress = candidates, rows, journal, progress
        self._tally = Counter(row["status"] for row in rows if row)
        self._first: dict[str, int] = {}  # sha256 of a stored picture → the first place that has it
        for place, row in enumerate(rows):
            if row and row["status"] == Status.OK:
                self._first.setdefault(row["sha256"], place)

    async def fetch_all(self) -> None:
        """Fills the rows that are missing."""
        self._turns: Turns[_Job] = Turns(self._config.per_host)
        missing = [place for place, row in enumerate(self._rows) if row is None]
        for place in missing:
            self._turns.add(_host(self._candidates[place]["url"]), _Job(place, 0))
        threads = self._config.threads or os.cpu_count() or 1
        with ThreadPoolExecutor(threads, "decode") as self._pool:
            async with Fetcher(self._config) as self._fetcher:
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(min(self._config.concurrency, len(missing))):
                            group.create_task(self._work())
                except ExceptionGroup as several:
                    raise several.exceptions[0] from None  # they have one cause, such as a full disk

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while (turn := await self._turns.take()) is not None:
            host, job = turn
            try:
                fetched = await self._fetcher.get(self._candidates[job.place]["url"])
            except Dropped as dropped:
                wait_s = self._patience(dropped, job.tried)
                if wait_s is not None:
                    asked_to = dropped.status == Status.HTTP_429 or dropped.wait_s is not None
                    self._turns.again(host, _Job(job.place, job.tried + 1), wait_s, rest=asked_to)
                    continue
                row = self._row(job.place, {}, dropped)
            else:
                row = await loop.run_in_executor(self._pool, self._stored, job.place, fetched)
            self._turns.done(host)
            self._finish(job.place, row)

    def _patience(self, dropped: Dropped, tried: int) -> float | None:
        """Seconds after which to try again; None: not in this run."""
        if dropped.status not in _PASSING or tried >= self._config.retries:
            return None
        wait_s = dropped.wait_s if dropped.wait_s is not None else 2**tried * random.uniform(0.5, 1.5)
        return wait_s if wait_s <= _LONGEST_WAIT_S else None

    def _stored(self, place: int, fetched: Fetched) -> Row:
        """Stores a picture, in a thread of the pool."""
        sha256 = hashlib.sha256(fetched.body).hexdigest()
        found: Row = {"sha256": sha256, "consent": fetched.consent}
        if self._first.get(sha256, place) < place:
            return self._row(place, found, Dropped(Status.DUPLICATE))
        try:
            picture = make_picture(fetched.body, self._config)
        except Dropped as dropped:
            return self._row(place, found, dropped)
        name = f"{self._candidates[place]['key']}.{picture.extension}"
        path = self._collection.image_folder(self._part) / name
        with commit(path, sync=False) as temporary:
            temporary.write_bytes(picture.data)
        found |= {
            "image": path.relative_to(self._collection.root).as_posix(),
            "width": picture.width,
            "height": picture.height,
            "original_width": picture.original_width,
            "original_height": picture.original_height,
            "bytes": len(picture.data),
        }
        return self._row(place, found)

    def _row(self, place: int, found: Row, dropped: Dropped | None = None) -> Row:
        candidate = self._candidates[place]
        row: Row = {
            "key": candidate["key"],
            "status": str(Status.OK),
            "detail": None,
            "url": candidate["url"],
            "text": candidate["text"],
            "text_kind": str(CaptionKind.ALT if (candidate["text"] or "").strip() else CaptionKind.NONE),
            "licence": candidate["licence"],
            **dict.fromkeys(_OF_PICTURES),
            **found,
        }
        if dropped is not None:
            detail = "".join(c if c.isprintable() else "?" for c in dropped.detail) or None  # headers may hold anything
            row |= {"status": str(dropped.status), "detail": detail, "consent": dropped.consent or row["consent"]}
        return row

    def _finish(self, place: int, row: Row) -> None:
        self._journal.add(row)
        self._rows[place] = row
        if row["status"] == Status.OK:
            self._first[row["sha256"]] = min(place, self._first.get(row["sha256"], place))
        self._tally[row["status"]] += 1
        note = ", ".join(f"{count} {status}" for status, count in self._tally.most_common(5))
        self._progress(sum(self._tally.values()), len(self._rows), note)

    def settled(self) -> list[Row]:
        """The rows, of which each that repeats an earlier one's bytes is a duplicate of it."""
        firsts: dict[str, Row] = {}
        settled = []
        for row in self._rows:
            assert row is not None
            if row["status"] not in (Status.OK, Status.DUPLICATE):
                settled.append(row)
                continue
            first = firsts.setdefault(row["sha256"], row)
            settled.append(row if first is row else _duplicate(row, first))
        return settled


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


def _duplicate(row: Row, first: Row) -> Row:
    sizes = {name: first[name] for name in ("original_width", "original_height")}
    nothing = dict.fromkeys(("image", "width", "height", "bytes"))
    return {**row, **nothing, **sizes, "status": str(Status.DUPLICATE), "detail": f"repeats {first['key']}"}


def _host(url: str | None) -> str:
    try:
        return URL((url or "").strip()).raw_host or ""
    except (ValueError, TypeError):
        return ""


def _keep_only(collection: Collection, part: str, rows: Sequence[Row]) -> None:
    """Sees to it that the part's pictures are on the disk, and that no others lie there (duplicates, an older plan)."""
    folder = collection.image_folder(part)
    names = {row["image"].rpartition("/")[2] for row in rows if row["image"]}
    for path in folder.glob("*"):
        if path.name not in names:
            path.unlink()
    with ThreadPoolExecutor(_SYNCS) as pool:  # side by side, the disk takes many at once
        list(pool.map(_sync, [folder / name for name in sorted(names)]))
    if names:
        _sync(folder)


def _sync(path: "os.PathLike[str]") -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
