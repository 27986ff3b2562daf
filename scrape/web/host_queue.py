"""A queue of requests to many hosts that is fair to each host and lets no slow host delay the others."""

import asyncio
from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

Request = TypeVar("Request")


class HostQueue(Generic[Request]):
    """Hands out requests host by host, at most `concurrency_per_host` of one host at once. For one event loop."""

    def __init__(
        self, concurrency_per_host: int, *, initial_concurrency: int | None = None, initial_delay_s: float = 0.0
    ) -> None:
        """Creates an empty queue.

        Args:
            concurrency_per_host: maximum concurrent requests to a host.
            initial_concurrency: the same until `admit` is called for the host; None: no difference.
            initial_delay_s: seconds between two requests to a host until `admit` is called for it.
        """
        self._concurrency, self._initial_concurrency = concurrency_per_host, initial_concurrency or concurrency_per_host
        self._initial_delay_s = initial_delay_s
        self._delays: dict[str, float] = {}  # admitted host → seconds between two requests
        self._waiting: dict[str, deque[Request]] = {}  # without empty queues
        self._busy: Counter[str] = Counter()  # host → its requests under way; without zeros
        self._open = 0  # requests that were taken and are not done
        self._ready: OrderedDict[str, None] = OrderedDict()  # hosts whose next request may be taken
        self._delayed = 0  # requests that wait for their time
        self._pauses: Counter[str] = Counter()  # host → number of reasons for which it is paused
        self._takers: deque[asyncio.Future[None]] = deque()
        self._stopped = False

    def add(self, host: str, request: Request) -> None:
        """Appends a request to its host's queue."""
        self._waiting.setdefault(host, deque()).append(request)
        self._offer(host)

    def admit(self, host: str, delay_s: float = 0.0) -> None:
        """Allows full concurrency to a host, with `delay_s` seconds between two requests."""
        if delay_s and host not in self._delays and host in self._busy:
            self.pause(host, delay_s)
        self._delays[host] = delay_s
        self._offer(host)

    def suspect(self, host: str) -> None:
        """Restricts a host to the initial concurrency and delay, until it is admitted again."""
        self._delays.pop(host, None)

    async def take(self) -> tuple[str, Request] | None:
        """Waits for the next request and its host; None when all are done.

        The caller calls `release` as soon as the request no longer occupies the host, and `done` at the end.
        """
        while self._stopped or not self._ready:
            if self._stopped or self._is_finished():
                return None
            taker = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            await taker
        host, _ = self._ready.popitem(last=False)
        request = self._waiting[host].popleft()
        if not self._waiting[host]:
            del self._waiting[host]
        self._busy[host] += 1
        self._open += 1
        delay_s = self._delays.get(host, self._initial_delay_s)
        if delay_s:
            self.pause(host, delay_s)
        self._offer(host)
        return host, request

    def release(self, host: str) -> None:
        """Notes that a request no longer occupies its host."""
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        self._offer(host)

    def done(self) -> None:
        """Notes that a taken request is finished, or was given to `retry`."""
        self._open -= 1
        if self._is_finished():
            self._wake(len(self._takers))

    def retry(self, host: str, request: Request, after_s: float) -> None:
        """Adds a request again after some seconds."""
        self._delayed += 1
        asyncio.get_running_loop().call_later(after_s, self._add_delayed, host, request)

    def pause(self, host: str, for_s: float) -> None:
        """Hands out no request of a host for some seconds."""
        self._pauses[host] += 1
        self._ready.pop(host, None)
        asyncio.get_running_loop().call_later(for_s, self._end_pause, host)

    def stop(self) -> None:
        """Hands out no more requests."""
        self._stopped = True
        self._wake(len(self._takers))

    def _add_delayed(self, host: str, request: Request) -> None:
        self._delayed -= 1
        self.add(host, request)

    def _end_pause(self, host: str) -> None:
        self._pauses[host] -= 1
        if not self._pauses[host]:
            del self._pauses[host]
        self._offer(host)

    def _is_finished(self) -> bool:
        return not self._waiting and not self._open and not self._delayed

    def _offer(self, host: str) -> None:
        """Marks a host as ready if a request of it may be taken."""
        limit = self._concurrency if host in self._delays else self._initial_concurrency
        is_free = self._busy.get(host, 0) < limit and host not in self._pauses
        if is_free and host in self._waiting and host not in self._ready:
            self._ready[host] = None
            self._wake(1)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._takers))):
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
