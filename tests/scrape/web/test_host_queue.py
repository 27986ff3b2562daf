"""HostQueue: each job once, no host too often at once, and none that holds the others."""

import asyncio
import selectors
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.scrape.web.host_queue import HostQueue

JOBS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), max_size=25)


@given(jobs=JOBS, concurrency_per_host=st.integers(1, 3), workers=st.integers(1, 6))
def test_each_job_is_done_as_often_as_it_asks_and_hosts_are_not_crowded(
    jobs: list[tuple[str, int, bool]], concurrency_per_host: int, workers: int
) -> None:
    """A job is its number and how often it is still to come back."""
    done: Counter[int] = Counter()
    out: Counter[str] = Counter()

    async def work(queue: HostQueue[tuple[int, int, bool]]) -> None:
        while taken := await queue.take():
            host, (number, more, rest) = taken
            out[host] += 1
            assert out[host] <= concurrency_per_host
            await asyncio.sleep(0)
            out[host] -= 1
            done[number] += 1
            if more:
                if rest:
                    queue.pause(host, 0.0001)
                queue.retry(host, (number, more - 1, rest), 0.0001)
            queue.release(host)
            queue.done()

    async def run() -> None:
        queue: HostQueue[tuple[int, int, bool]] = HostQueue(concurrency_per_host)
        for number, (host, more, rest) in enumerate(jobs):
            queue.add(host, (number, more, rest))
        await asyncio.wait_for(asyncio.gather(*[work(queue) for _ in range(workers)]), 20)

    asyncio.run(run())
    assert done == {number: more + 1 for number, (_, more, _) in enumerate(jobs)}


def test_hosts_take_turns() -> None:
    async def run() -> list[str]:
        queue: HostQueue[int] = HostQueue(9)
        for number, host in enumerate("aaaaabbc"):
            queue.add(host, number)
        return [(await queue.take() or ("", 0))[0] for _ in range(8)]

    assert "".join(asyncio.run(run())) == "abcabaaa"


def test_a_resting_host_is_left_alone_and_the_others_are_not() -> None:
    async def run() -> list[str]:
        queue: HostQueue[str] = HostQueue(1)
        for job in ("a1", "a2", "b1", "b2"):
            queue.add(job[0], job)
        await queue.take()
        queue.pause("a", 0.05)
        queue.retry("a", "a1", 0.05)
        queue.release("a")
        queue.done()
        order = []
        while taken := await queue.take():
            order.append(taken[1])
            queue.release(taken[0])
            queue.done()
        return order

    assert asyncio.run(run()) == ["b1", "b2", "a2", "a1"]


class Timeless(asyncio.SelectorEventLoop):
    """An event loop whose clock stands while anything can run, and jumps to the next timer when nothing can."""

    def __init__(self) -> None:
        loop, self.now = self, 0.0

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                loop.now += timeout or 0
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("admitted", [True, False])
def test_requests_to_a_host_are_a_delay_apart_and_another_host_waits_for_none_of_it(admitted: bool) -> None:
    taken: list[tuple[str, float]] = []

    async def run() -> None:
        queue: HostQueue[int] = HostQueue(9, initial_delay_s=0 if admitted else 5)
        if admitted:
            queue.admit("a", 5)
        for number, host in enumerate("aaabbb" if admitted else "aaa"):
            queue.add(host, number)
        while got := await queue.take():
            taken.append((got[0], asyncio.get_running_loop().time()))
            queue.release(got[0])
            queue.done()

    with asyncio.Runner(loop_factory=Timeless) as runner:
        runner.run(run())
    assert [when for host, when in taken if host == "a"] == pytest.approx([0, 5, 10])
    assert {when for host, when in taken if host == "b"} <= {0}


def test_a_host_with_two_pauses_rests_until_the_longer_ends() -> None:
    taken: list[float] = []

    async def run() -> None:
        queue: HostQueue[int] = HostQueue(1)
        queue.pause("a", 5)
        queue.pause("a", 9)
        queue.add("a", 0)
        while got := await queue.take():
            taken.append(asyncio.get_running_loop().time())
            queue.release(got[0])
            queue.done()

    with asyncio.Runner(loop_factory=Timeless) as runner:
        runner.run(run())
    assert taken == pytest.approx([9])


def test_a_delay_counts_from_when_it_is_known_and_once() -> None:
    """The first request of a host, its robots.txt, is sent before the delay is known, and is still under way then."""

    async def run() -> float:
        queue: HostQueue[int] = HostQueue(9, initial_concurrency=1)
        queue.add("a", 0)
        queue.add("a", 1)
        await queue.take()
        for _ in range(2):  # after robots.txt, and after the first answer
            await asyncio.sleep(1)
            queue.admit("a", 5)
        await queue.take()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=Timeless) as runner:
        assert runner.run(run()) == pytest.approx(6)


def test_a_suspected_host_is_asked_once_at_a_time_until_it_answers() -> None:
    async def run() -> list[bool]:
        queue: HostQueue[int] = HostQueue(9, initial_concurrency=1)
        queue.admit("a")
        for number in range(3):
            queue.add("a", number)
        queue.suspect("a")
        await queue.take()
        taker = asyncio.ensure_future(queue.take())
        taken = []
        for is_answered in (False, True):
            if is_answered:
                queue.admit("a")
            for _ in range(9):
                await asyncio.sleep(0)
            taken.append(taker.done())
        return taken

    assert asyncio.run(run()) == [False, True]
