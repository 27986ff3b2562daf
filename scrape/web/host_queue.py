"""Whose turn it is: jobs of many hosts, handed out so that none is asked too much and none holds the rest."""

import asyncio
from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Turns(Generic[Job]):
    """Hands out one job of each host in turn, at most `concurrency_per_host` of one at once. For one event loop."""

    def __init__(self, concurrency_per_host: int, *, first: int | None = None, delay_s: float = 0.0) -> None:
        """Args:
        first: jobs of a host at once until `admit` is called for it; None: as many as later.
        delay_s: seconds from one of its jobs to the next until then.
        """
        self._per_host = concurrency_per_host
        self._first, self._delay_s = first or concurrency_per_host, delay_s
        self._admitted: dict[str, float] = {}  # host → seconds from one of its jobs to the next
        self._waiting: dict[str, deque[Job]] = {}  # no empty ones
        self._out: Counter[str] = Counter()  # host → its jobs that keep it busy; no zeros
        self._open = 0  # jobs that were taken and are not done
        self._ready: OrderedDict[str, None] = OrderedDict()  # hosts that may be asked now
        self._later = 0  # jobs that wait for their time
        self._resting: Counter[str] = Counter()  # host → for how many reasons it is left alone
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._stopped = False

    def add(self, host: str, job: Job) -> None:
        """Puts a job at the end of its host's queue."""
        self._waiting.setdefault(host, deque()).append(job)
        self._offer(host)

    def admit(self, host: str, delay_s: float = 0.0) -> None:
        """A host may be asked as much as any, with so many seconds from one job to the next."""
        if delay_s and host not in self._admitted and host in self._out:
            self.rest(host, delay_s)
        self._admitted[host] = delay_s
        self._offer(host)

    def suspect(self, host: str) -> None:
        """A host is asked as little as at first, until it is admitted again."""
        self._admitted.pop(host, None)

    async def take(self) -> tuple[str, Job] | None:
        """The next job, as soon as there is one; None when all are done.

        Whoever takes one calls `free` as soon as it keeps its host busy no more, and at last `done`.
        """
        while self._stopped or not self._ready:
            if self._stopped or self._is_over():
                return None
            sleeper = asyncio.get_running_loop().create_future()
            self._sleepers.append(sleeper)
            await sleeper
        host, _ = self._ready.popitem(last=False)
        job = self._waiting[host].popleft()
        if not self._waiting[host]:
            del self._waiting[host]
        self._out[host] += 1
        self._open += 1
        delay_s = self._admitted.get(host, self._delay_s)
        if delay_s:
            self.rest(host, delay_s)
        self._offer(host)
        return host, job

    def free(self, host: str) -> None:
        """A job keeps its host busy no more."""
        self._out[host] -= 1
        if not self._out[host]:
            del self._out[host]
        self._offer(host)

    def done(self) -> None:
        """A job is done, or will be done again."""
        self._open -= 1
        if self._is_over():
            self._wake(len(self._sleepers))

    def again(self, host: str, job: Job, after_s: float) -> None:
        """A job is to be done once more, after so many seconds."""
        self._later += 1
        asyncio.get_running_loop().call_later(after_s, self._now, host, job)

    def rest(self, host: str, for_s: float) -> None:
        """A host is left alone for so long."""
        self._resting[host] += 1
        self._ready.pop(host, None)
        asyncio.get_running_loop().call_later(for_s, self._rested, host)

    def stop(self) -> None:
        """Hands out no more jobs."""
        self._stopped = True
        self._wake(len(self._sleepers))

    def _now(self, host: str, job: Job) -> None:
        self._later -= 1
        self.add(host, job)

    def _rested(self, host: str) -> None:
        self._resting[host] -= 1
        if not self._resting[host]:
            del self._resting[host]
        self._offer(host)

    def _is_over(self) -> bool:
        return not self._waiting and not self._open and not self._later

    def _offer(self, host: str) -> None:
        most = self._per_host if host in self._admitted else self._first
        free = self._out.get(host, 0) < most and host not in self._resting
        if free and host in self._waiting and host not in self._ready:
            self._ready[host] = None
            self._wake(1)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._sleepers))):
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
