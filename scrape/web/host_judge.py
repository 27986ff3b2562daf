"""Judges hosts by their answers: pauses those that are busy or down, and gives up those that stay so."""

import asyncio
import logging
from typing import Any

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.circuit_breaker import CircuitBreaker
from dreamloom.scrape.web.host_queue import HostQueue
from dreamloom.scrape.web.outcome import RowDropped

_log = logging.getLogger(__name__)

MAX_WAIT_S = 30.0
"""Longest wait in a run that a host may ask for; one that asks for more is given up, and its rows can be retried."""
_NO_RESPONSE = {Status.DNS_TEMPORARY, Status.CONNECTION, Status.TLS, Status.TIMEOUT, Status.SHORT_BODY, Status.HTTP_5XX}
"""Failures that a host shows when it is down."""


class HostJudge:
    """Decides when a queue hands out the requests of each host. For one event loop."""

    def __init__(self, queue: HostQueue[Any], delay_s: float, max_failures: int | None) -> None:
        """Knows nothing of any host yet.

        Args:
            queue: the requests.
            delay_s: minimum seconds between two requests to a host.
            max_failures: failures in a row after which a host is paused; None: it never is.
        """
        self._queue, self._min_delay_s = queue, delay_s
        self._breaker = CircuitBreaker(max_failures)
        self._delays: dict[str, float] = {}  # host → seconds between two requests, after its robots.txt
        self._given_up: dict[str, tuple[Status, str]] = {}  # host → status and detail of its further rows

    def is_given_up(self, host: str) -> bool:
        """Whether a host is asked for nothing any more."""
        return host in self._given_up

    def check(self, host: str) -> None:
        """Raises RowDropped where the host is given up."""
        if host in self._given_up:
            raise RowDropped(*self._given_up[host])

    def knows_delay(self, host: str) -> bool:
        """Whether `admit` was called for a host."""
        return host in self._delays

    def admit(self, host: str, crawl_delay_s: float) -> None:
        """Lets requests of a host pass, as fast as its robots.txt allows."""
        self._delays[host] = max(self._min_delay_s, crawl_delay_s)
        self._queue.admit(host, self._delays[host])

    def record_response(self, host: str) -> None:
        """Records that a host responded, even if only with an error of its own."""
        self._breaker.record_response(host, asyncio.get_running_loop().time())
        self._queue.admit(host, self._delays.get(host, self._min_delay_s))

    def record_failure(self, host: str, dropped: RowDropped, began: float, retry_delay_s: float | None) -> None:
        """Pauses a host that is busy or down, or gives it up.

        Args:
            host: the host.
            dropped: how the request ended.
            began: when it was sent, on the loop's clock.
            retry_delay_s: seconds after which it is sent again; None: it is not.
        """
        status, requested_wait_s = dropped.status, dropped.wait_s
        is_busy = status == Status.HTTP_429 or (status == Status.HTTP_5XX and requested_wait_s is not None)
        if status == Status.DNS_UNKNOWN:
            self._give_up(host, status, dropped.detail)
        elif is_busy and (requested_wait_s or 0.0) > MAX_WAIT_S:
            self._give_up(host, status, "not asked, as its host wants to be left alone")
        elif is_busy or status in _NO_RESPONSE:
            pause_s = self._breaker.record_failure(host, began)
            if pause_s is None and is_busy:
                self._give_up(host, status, "not asked, as its host was busy all the time")
            elif pause_s is None:
                self._give_up(host, Status.HOST_DOWN, "not asked, as its host did not answer any more")
            else:
                busy_s = requested_wait_s if requested_wait_s is not None else retry_delay_s or 1.0
                self._pause(host, pause_s, busy_s if is_busy else 0.0)
        else:
            self.record_response(host)

    def _pause(self, host: str, breaker_s: float, busy_s: float) -> None:
        """Pauses a host for as long as its circuit breaker or its own wish to be left alone asks for."""
        if breaker_s:
            self._queue.suspect(host)
        if pause_s := max(breaker_s, busy_s):
            self._queue.pause(host, pause_s)

    def _give_up(self, host: str, status: Status, detail: str) -> None:
        if host not in self._given_up:
            level = logging.DEBUG if status == Status.DNS_UNKNOWN else logging.INFO  # an index has thousands of these
            _log.log(level, "host given up: %s (%s; %s)", host, status, detail)
        self._given_up[host] = (status, detail)
        self._queue.admit(host)  # without delay, as no more requests are sent to it
