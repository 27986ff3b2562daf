"""Requests side by side, each in its host's turn; images decoded in threads, and rows written down as they finish."""

import asyncio
import logging
import os
import random
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from yarl import URL

from dreamloom.base.progress import Progress
from dreamloom.base.stop import run_stoppable
from dreamloom.scrape.collection import Collection, Row, Status
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.web.address import checked_url
from dreamloom.scrape.web.circuit_breaker import Breaker
from dreamloom.scrape.web.dedup import row_of
from dreamloom.scrape.web.host_queue import Turns
from dreamloom.scrape.web.http import Fetched, Fetcher
from dreamloom.scrape.web.optout import SILENT
from dreamloom.scrape.web.outcome import Dropped
from dreamloom.scrape.web.robots import Robots
from dreamloom.scrape.web.store import store_picture

if TYPE_CHECKING:
    from dreamloom.scrape.web.config import ScrapeConfig

_log = logging.getLogger(__name__)

_PASSING = {Status.DNS_TEMPORARY, Status.CONNECTION, Status.SHORT_BODY, Status.HTTP_429, Status.HTTP_5XX}
"""What may be over in seconds."""
_NO_ANSWER = {Status.DNS_TEMPORARY, Status.CONNECTION, Status.TLS, Status.TIMEOUT, Status.SHORT_BODY, Status.HTTP_5XX}
"""What a host that is down looks like."""
_LONGEST_WAIT_S = 30.0
"""A host that wants to be left alone for longer is, and its rows can be fetched again in another run."""
_LAST_S = 4.5
"""What is under way when the user stops a run may take so long to end."""
_BACKLOG = 4
"""Pictures that wait to be decoded, a thread: with more, no further address is asked until some are done."""


class _Job(NamedTuple):
    """A candidate's next request."""

    place: int
    address: URL
    """Where it is now; not the candidate's own once it was redirected."""
    hops: int = 0
    tried: int = 0
    spent_s: float = 0.0


class Crawler:
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
        """Args:
        rows: of the candidates, in their order; those that are None are filled.
        """
        self._collection, self._part, self._config = collection, part, config
        self._candidates, self._rows, self._journal, self._progress = candidates, rows, journal, progress
        self._tally = Counter(row["status"] for row in rows if row)
        self._first: dict[str, int] = {}  # sha256 of a stored image → the first place that has it
        for place, row in enumerate(rows):
            if row and row["status"] == Status.OK:
                self._first.setdefault(row["sha256"], place)
        self._missing = deque(place for place, row in enumerate(rows) if row is None)
        self._known_ok = [place for place, row in enumerate(rows) if row and row["status"] == Status.OK]
        self._came = self._under_way = 0

    def fetch(self, target: int | None) -> None:
        """Fetches candidates in their order, until so many images came or none is left."""
        self._target = target
        if self._missing and self._is_wanted(self._missing[0]):
            run_stoppable(self._fetch_all())

    def _is_wanted(self, place: int) -> bool:
        """Whether too few images come before a place; of those under way, half are thought to."""
        if self._target is None:
            return True
        return bisect_left(self._known_ok, place) + self._came + self._under_way / 2 < self._target

    async def _fetch_all(self) -> None:
        config = self._config
        self._turns: Turns[_Job] = Turns(
            config.concurrency_per_host, first=1 if config.respect_optout else None, delay_s=config.delay_per_host_s
        )
        self._delays: dict[str, float] = {}  # host → seconds from one request to the next, by its robots.txt
        self._breaker = Breaker(config.max_host_failures)
        self._given_up: dict[str, tuple[Status, str]] = {}  # hosts that are not asked any more, and why
        threads = config.decode_threads or os.cpu_count() or 1
        self._decoding, self._backlog, self._room = 0, _BACKLOG * threads, asyncio.Event()
        self._room.set()
        with ThreadPoolExecutor(threads, "decode") as self._pool:
            async with Fetcher(config) as self._fetcher:
                self._robots = Robots(self._fetcher, allow_private_addresses=config.allow_private_addresses)
                self._offer()
                await self._work_off(min(config.concurrency, len(self._rows)))

    async def _work_off(self, workers: int) -> None:
        tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:  # the user stops the run
            self._turns.stop()
            await asyncio.wait(tasks, timeout=_LAST_S)
            raise
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error  # the workers' errors have one cause, such as a full disk

    # What is asked next

    def _offer(self) -> None:
        """Hands over as many candidates as are wanted."""
        while self._missing and self._is_wanted(self._missing[0]):
            place = self._missing.popleft()
            self._under_way += 1
            self._add(place, self._candidates[place]["url"])

    def _add(self, place: int, url: str | None, hops: int = 0, tried: int = 0, spent_s: float = 0.0) -> None:
        try:
            address = checked_url(url, allow_private_addresses=self._config.allow_private_addresses)
        except Dropped as dropped:
            self._finish(place, self._row(place, dropped))
        else:
            self._turns.add(address.raw_host or "", _Job(place, address, hops, tried, spent_s))

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while (turn := await self._turns.take()) is not None:
            host, job = turn
            await self._room.wait()
            began = clock()
            try:
                got = await self._ask(host, job)
            except Dropped as dropped:
                self._drop(host, job, dropped, began)
            else:
                self._answered(host)
                self._turns.free(host)
                if isinstance(got, str):
                    self._follow(job, got, job.spent_s + clock() - began)
                else:
                    self._finish(job.place, await self._decoded(job.place, got))
            self._offer()
            self._turns.done()

    async def _ask(self, host: str, job: _Job) -> Fetched | str:
        """One request, where the host may be asked."""
        if host in self._given_up:
            raise Dropped(*self._given_up[host])
        if not self._config.respect_optout:
            return await self._fetcher.get(job.address, self._config.timeout_s - job.spent_s)
        rules = await self._robots.rules(job.address)
        if host not in self._delays:
            self._delays[host] = max(self._config.delay_per_host_s, rules.delay_s)
            self._turns.admit(host, self._delays[host])
        says = rules.verdict(job.address)
        try:
            got = await self._fetcher.get(job.address, self._config.timeout_s - job.spent_s)
        except Dropped as dropped:
            dropped.consent = dropped.consent and _together(says, dropped.consent)
            raise
        return got if isinstance(got, str) else Fetched(got.body, _together(says, got.consent))

    # What came of it

    def _follow(self, job: _Job, url: str, spent_s: float) -> None:
        if job.hops < self._config.max_redirects:
            self._add(job.place, url, job.hops + 1, job.tried, spent_s)
        else:
            dropped = Dropped(Status.TOO_MANY_REDIRECTS, f"more than {self._config.max_redirects}")
            self._finish(job.place, self._row(job.place, dropped))

    def _drop(self, host: str, job: _Job, dropped: Dropped, began: float) -> None:
        """A request that gave no image: what it says of its host, and whether to try once more."""
        asked = host not in self._given_up
        wait_s = self._patience(dropped, job.tried)
        if asked:
            self._judge(host, dropped, began, wait_s)
        if asked and wait_s is not None and host not in self._given_up:
            self._turns.again(host, job._replace(tried=job.tried + 1, spent_s=0.0), wait_s)
        else:
            self._finish(job.place, self._row(job.place, dropped))
        self._turns.free(host)

    def _patience(self, dropped: Dropped, tried: int) -> float | None:
        """Seconds after which to try again; None: not in this run."""
        if dropped.status not in _PASSING or tried >= self._config.retries:
            return None
        if dropped.wait_s is not None:
            return dropped.wait_s if dropped.wait_s <= _LONGEST_WAIT_S else None
        return min(2.0**tried * random.uniform(0.5, 1.5), _LONGEST_WAIT_S)

    def _judge(self, host: str, dropped: Dropped, began: float, wait_s: float | None) -> None:
        """Leaves a host alone that is busy or down, or gives it up."""
        status, asks_for_s = dropped.status, dropped.wait_s
        busy = status == Status.HTTP_429 or (status == Status.HTTP_5XX and asks_for_s is not None)
        if status == Status.DNS_UNKNOWN:
            self._give_up(host, status, dropped.detail)
        elif busy and (asks_for_s or 0.0) > _LONGEST_WAIT_S:
            self._give_up(host, status, "not asked, as its host wants to be left alone")
        elif busy or status in _NO_ANSWER:
            rest_s = self._breaker.failed(host, began)
            if rest_s is None:
                down = (Status.HOST_DOWN, "not asked, as its host did not answer any more")
                self._give_up(host, *((status, "not asked, as its host was busy all the time") if busy else down))
                return
            if rest_s:
                self._turns.suspect(host)
            if busy:
                rest_s = max(rest_s, asks_for_s if asks_for_s is not None else wait_s or 1.0)
            if rest_s:
                self._turns.rest(host, rest_s)
        else:
            self._answered(host)

    def _answered(self, host: str) -> None:
        self._breaker.answered(host, asyncio.get_running_loop().time())
        self._turns.admit(host, self._delays.get(host, self._config.delay_per_host_s))

    def _give_up(self, host: str, status: Status, detail: str) -> None:
        if host not in self._given_up:
            level = logging.DEBUG if status == Status.DNS_UNKNOWN else logging.INFO  # an index has thousands of these
            _log.log(level, "host given up: %s (%s; %s)", host, status, detail)
        self._given_up[host] = (status, detail)
        self._turns.admit(host)  # without delay: nothing is asked of it

    async def _decoded(self, place: int, fetched: Fetched) -> Row:
        if not fetched.body:
            return self._row(place, Dropped(Status.EMPTY, consent=fetched.consent))
        self._decoding += 1
        if self._decoding >= self._backlog:
            self._room.clear()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._stored, place, fetched)
        finally:
            self._decoding -= 1
            if self._decoding < self._backlog:
                self._room.set()

    def _stored(self, place: int, fetched: Fetched) -> Row:
        """Stores an image, in a thread of the pool."""
        folder = self._collection.image_folder(self._part)
        candidate = self._candidates[place]

        def is_copy(sha256: str) -> bool:
            return self._first.get(sha256, place) < place

        return store_picture(folder, candidate, fetched.body, fetched.consent, self._config, is_copy)

    def _row(self, place: int, dropped: Dropped) -> Row:
        return row_of(self._candidates[place], {}, dropped)

    def _finish(self, place: int, row: Row) -> None:
        self._journal.add(row)
        self._rows[place] = row
        self._under_way -= 1
        if row["status"] == Status.OK:
            self._came += 1
            self._first[row["sha256"]] = min(place, self._first.get(row["sha256"], place))
        self._tally[row["status"]] += 1
        note = ", ".join(f"{count} {status}" for status, count in self._tally.most_common(5))
        self._progress(sum(self._tally.values()), len(self._rows), note)


def _together(robots: str | None, headers: str) -> str:
    """What a host said, in one line."""
    if robots is None:
        return headers
    return robots if headers == SILENT else f"{robots}; {headers}"
