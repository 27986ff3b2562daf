"""Whose turn it is: jobs of many hosts, handed out so that none is asked too much and none holds the rest."""

import asyncio
from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Turns(Generic[Job]):
    """Hands out one job of each host in turn, never more than `per_host` of one at once. For one event loop."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._waiting: dict[str, deque[Job]] = {}  # no empty ones
        self._out: Counter[str] = Counter()  # no zeros
        self._ready: OrderedDict[str, None] = OrderedDict()  # hosts that may be asked now
        self._later = 0  # jobs that wait for their time
        self._resting: Counter[str] = Counter()  # host → for how many of its jobs it is left alone
        self._sleepers: deque[asyncio.Future[None]] = deque()

    def add(self, host: str, job: Job) -> None:
        """Puts a job at the end of its host's queue."""
        self._waiting.setdefault(host, deque()).append(job)
        self._offer(host)

    async def take(self) -> tuple[str, Job] | None:
        """The next job, as soon as there is one; None when all are done. It is given back by `done` or `again`."""
        while not self._ready:
            if self._is_over():
                return None
            sleeper = asyncio.get_running_loop().create_future()
            self._sleepers.append(sleeper)
            await sleeper
        host, _ = self._ready.popitem(last=False)
        job = self._waiting[host].popleft()
        if not self._waiting[host]:
            del self._waiting[host]
        self._out[host] += 1
        self._offer(host)
        return host, job

    def done(self, host: str) -> None:
        """A job of this host is done."""
        self._out[host] -= 1
        if not self._out[host]:
            del self._out[host]
        self._offer(host)
        if self._is_over():
            self._wake(len(self._sleepers))

    def again(self, host: str, job: Job, after_s: float, *, rest: bool) -> None:
        """A job is to be done once more, after so many seconds.

        Args:
            rest: leave its host alone for so long.
        """
        self._later += 1
        self._resting[host] += rest
        if rest:
            self._ready.pop(host, None)
        asyncio.get_running_loop().call_later(after_s, self._now, host, job, rest)
        self.done(host)

    def _now(self, host: str, job: Job, rested: bool) -> None:
        self._later -= 1
        self._resting[host] -= rested
        self.add(host, job)

    def _is_over(self) -> bool:
        return not self._waiting and not self._out and not self._later

    def _offer(self, host: str) -> None:
        free = self._out.get(host, 0) < self._per_host and not self._resting.get(host, 0)
        if free and host in self._waiting and host not in self._ready:
            self._ready[host] = None
            self._wake(1)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._sleepers))):
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
