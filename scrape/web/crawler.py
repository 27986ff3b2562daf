"""Fetches the candidates of a part concurrently, host by host; decodes images in threads, and journals each row."""

import asyncio
import os
import random
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from yarl import URL

from dreamloom.base.stop import run_stoppable
from dreamloom.scrape.collection import Row, Status
from dreamloom.scrape.web.address import check_url
from dreamloom.scrape.web.cookies import may_have_cookies_of
from dreamloom.scrape.web.host_judge import MAX_WAIT_S, HostJudge
from dreamloom.scrape.web.host_queue import HostQueue
from dreamloom.scrape.web.http import Fetcher, Redirect, Response
from dreamloom.scrape.web.job import PartJob
from dreamloom.scrape.web.optout import NO_STATEMENT, join_consent
from dreamloom.scrape.web.outcome import RowDropped, make_row, unforeseen_errors_cost_one_row
from dreamloom.scrape.web.robots import RobotsCache
from dreamloom.scrape.web.shared import share_row, source_of
from dreamloom.scrape.web.store import store_image

_TRANSIENT = {Status.DNS_TEMPORARY, Status.CONNECTION, Status.SHORT_BODY, Status.HTTP_429, Status.HTTP_5XX}
"""Failures that may pass in seconds."""
_STOP_GRACE_S = 4.5
"""Seconds that requests under way have to end when the user stops the run."""
_BACKLOG_PER_THREAD = 4
"""Images per thread that wait to be decoded; with more, no further request is sent until some are done."""


class _Request(NamedTuple):
    """The next request for a candidate."""

    place: int
    """Position of the candidate in the part."""
    url: URL
    """Current URL; after a redirect, not the candidate's own."""
    num_redirects: int = 0
    num_retries: int = 0
    spent_s: float = 0.0
    """Seconds that earlier requests of this attempt took."""
    cookies: str = ""
    """Cookies that the host set as it redirected here."""
    consent: str = NO_STATEMENT
    """What the hosts that redirected here said about use."""


class Crawler:
    """The state of one part while it is fetched."""

    def __init__(self, job: PartJob, rows: list[Row | None]) -> None:
        """Counts what is there; nothing is requested yet.

        Args:
            job: the part.
            rows: the rows of the candidates, in their order; those that are None are filled.
        """
        self._job, self._config, self._rows = job, job.config, rows
        self._status_counts = Counter(row["status"] for row in rows if row)
        self._existing_images = [place for place, row in enumerate(rows) if row and row["status"] == Status.OK]
        self._first_place: dict[str, int] = {}  # sha256 of a stored image → the first place that has it
        for place, row in enumerate(rows):
            if row and row["status"] == Status.OK:
                self._first_place.setdefault(row["sha256"], place)
        self._followers: dict[Hashable, list[int]] = {}  # source → further places that get the first one's image
        self._missing: deque[int] = deque()
        for place, row in enumerate(rows):
            if row is None:
                self._add_missing(place)
        self._num_stored = self._num_under_way = 0

    def _add_missing(self, place: int) -> None:
        source = source_of(self._job.candidates[place])
        if source in self._followers:
            self._followers[source].append(place)
        else:
            self._followers[source] = []
            self._missing.append(place)

    def fetch(self, target: int | None) -> None:
        """Fetches candidates in their order until `target` images are stored, or none is left."""
        self._target = target
        if self._missing and self._is_wanted(self._missing[0]):
            run_stoppable(self._fetch_all())

    def _is_wanted(self, place: int) -> bool:
        """Whether fewer images than the target precede a place, if half of the requests under way succeed."""
        if self._target is None:
            return True
        return bisect_left(self._existing_images, place) + self._num_stored + self._num_under_way / 2 < self._target

    async def _fetch_all(self) -> None:
        config = self._config
        delay_s = config.delay_per_host_s * self._job.num_workers
        self._queue: HostQueue[_Request] = HostQueue(
            max(1, config.concurrency_per_host // self._job.num_workers),
            initial_concurrency=1 if config.respect_optout else None,
            initial_delay_s=delay_s,
        )
        self._hosts = HostJudge(self._queue, delay_s, config.max_host_failures)
        num_threads = config.decode_threads or os.cpu_count() or 1
        self._num_decoding, self._max_decoding = 0, _BACKLOG_PER_THREAD * num_threads
        self._may_request = asyncio.Event()
        self._may_request.set()
        with ThreadPoolExecutor(num_threads, "decode") as self._pool:
            async with Fetcher(config) as self._fetcher:
                self._robots = RobotsCache(self._fetcher, allow_private_addresses=config.allow_private_addresses)
                self._enqueue_wanted()
                await self._run_workers(min(config.concurrency, len(self._rows)))

    async def _run_workers(self, num_workers: int) -> None:
        tasks = [asyncio.create_task(self._work()) for _ in range(num_workers)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:  # the user stops the run
            self._queue.stop()
            await asyncio.wait(tasks, timeout=_STOP_GRACE_S)
            raise
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result  # the workers' errors have one cause, such as a full disk

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while (taken := await self._queue.take()) is not None:
            host, request = taken
            await self._may_request.wait()
            began = clock()
            try:
                with unforeseen_errors_cost_one_row(request.url):
                    response = await self._send(host, request)
            except RowDropped as dropped:
                self._handle_failure(host, request, dropped, began)
            else:
                self._hosts.record_response(host)
                self._queue.release(host)
                if isinstance(response, Redirect):
                    self._follow_redirect(request, response, request.spent_s + clock() - began)
                else:
                    consent = join_consent(request.consent, response.consent)
                    self._finish(request.place, await self._decode(request.place, replace(response, consent=consent)))
            self._enqueue_wanted()
            self._queue.done()

    # Requests

    def _enqueue_wanted(self) -> None:
        """Enqueues as many candidates as are wanted."""
        while self._missing and self._is_wanted(self._missing[0]):
            place = self._missing.popleft()
            self._num_under_way += 1
            self._enqueue(place, self._job.candidates[place]["url"])

    def _enqueue(self, place: int, text: str | None, redirected: _Request | None = None) -> None:
        """Enqueues a candidate's URL, or the one to which the answer to a request leads."""
        try:
            with unforeseen_errors_cost_one_row(text):
                url = check_url(
                    text, allow_private_addresses=self._config.allow_private_addresses, of_index=redirected is None
                )
        except RowDropped as dropped:
            self._finish_dropped(place, dropped)
        else:
            request = redirected._replace(url=url) if redirected else _Request(place, url)
            if redirected and not may_have_cookies_of(redirected.url, url):
                request = request._replace(cookies="")
            self._queue.add(url.raw_host or "", request)

    async def _send(self, host: str, request: _Request) -> Response | Redirect:
        """Sends one request, if the host may be asked."""
        self._hosts.check(host)
        timeout_s = self._config.timeout_s - request.spent_s
        if not self._config.respect_optout:
            return await self._fetcher.fetch(request.url, timeout_s, request.cookies)
        rules = await self._robots.rules(request.url)
        if not self._hosts.knows_delay(host):
            self._hosts.admit(host, await rules.delay_s() * self._job.num_workers)
        verdict = await rules.verdict(request.url)
        try:
            response = await self._fetcher.fetch(request.url, timeout_s, request.cookies)
        except RowDropped as dropped:
            dropped.consent = dropped.consent and join_consent(verdict, dropped.consent)
            raise
        if isinstance(response, Redirect):
            return response
        return Response(response.body, join_consent(verdict, response.consent))

    def _follow_redirect(self, request: _Request, redirect: Redirect, spent_s: float) -> None:
        if request.num_redirects < self._config.max_redirects:
            redirected = request._replace(
                num_redirects=request.num_redirects + 1,
                spent_s=spent_s,
                cookies=redirect.cookies,
                consent=join_consent(request.consent, redirect.consent),
            )
            self._enqueue(request.place, redirect.location, redirected)
        else:
            dropped = RowDropped(Status.TOO_MANY_REDIRECTS, f"more than {self._config.max_redirects}")
            self._finish_dropped(request.place, dropped)

    # Failures

    def _handle_failure(self, host: str, request: _Request, dropped: RowDropped, began: float) -> None:
        """Judges the host of a failed request, and retries the request or ends its candidate."""
        was_asked = not self._hosts.is_given_up(host)
        wait_s = self._retry_delay(dropped, request.num_retries)
        if was_asked:
            self._hosts.record_failure(host, dropped, began, wait_s)
        if was_asked and wait_s is not None and not self._hosts.is_given_up(host):
            self._queue.retry(host, request._replace(num_retries=request.num_retries + 1, spent_s=0.0), wait_s)
        else:
            self._finish_dropped(request.place, dropped)
        self._queue.release(host)

    def _retry_delay(self, dropped: RowDropped, num_retries: int) -> float | None:
        """Returns the seconds after which to retry; None: not in this run."""
        if dropped.status not in _TRANSIENT or num_retries >= self._config.retries:
            return None
        if dropped.wait_s is not None:
            return dropped.wait_s  # where it is too long, the host is given up
        return min(2.0**num_retries * random.uniform(0.5, 1.5), MAX_WAIT_S)

    # Images and rows

    async def _decode(self, place: int, response: Response) -> Row:
        """Decodes and stores an image in a thread. Returns its row."""
        if not response.body:
            return make_row(self._job.candidates[place], {}, RowDropped(Status.EMPTY, consent=response.consent))
        self._num_decoding += 1
        if self._num_decoding >= self._max_decoding:
            self._may_request.clear()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._store, place, response)
        finally:
            self._num_decoding -= 1
            if self._num_decoding < self._max_decoding:
                self._may_request.set()

    def _store(self, place: int, response: Response) -> Row:
        job = self._job

        def is_copy(sha256: str) -> bool:
            return self._first_place.get(sha256, place) < place

        return store_image(
            job.image_folder, job.candidates[place], response.body, response.consent, job.config, is_copy
        )

    def _finish_dropped(self, place: int, dropped: RowDropped) -> None:
        self._finish(place, make_row(self._job.candidates[place], {}, dropped))

    def _finish(self, place: int, row: Row) -> None:
        self._job.journal.add(row)
        self._rows[place] = row
        self._num_under_way -= 1
        if row["status"] == Status.OK:
            self._num_stored += 1
            self._first_place[row["sha256"]] = min(place, self._first_place.get(row["sha256"], place))
        self._status_counts[row["status"]] += 1
        for follower in self._followers.pop(source_of(self._job.candidates[place]), ()):
            self._num_under_way += 1
            self._finish(follower, share_row(self._job, self._job.candidates[follower], row))
        note = ", ".join(f"{count} {status}" for status, count in self._status_counts.most_common(5))
        self._job.progress(sum(self._status_counts.values()), len(self._rows), note)
