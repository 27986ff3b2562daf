"""Hosts that want to be left alone, or that no name leads to, are given up; those with errors of their own are not."""

import asyncio
from collections.abc import Callable

import pytest

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.circuit_breaker import MAX_OPENINGS
from dreamloom.scrape.web.host_judge import HostJudge
from dreamloom.scrape.web.host_queue import HostQueue
from dreamloom.scrape.web.outcome import RowDropped


@pytest.mark.parametrize(
    ("status", "wait_s", "detail"),
    [
        (Status.HTTP_429, 30.0, None),
        (Status.HTTP_429, 31.0, "not asked, as its host wants to be left alone"),
        (Status.HTTP_5XX, 31.0, "not asked, as its host wants to be left alone"),
        (Status.HTTP_5XX, None, None),
        (Status.DNS_UNKNOWN, None, "no such name"),
        (Status.HTTP_404, 31.0, None),
    ],
)
def test_after_one_answer(status: Status, wait_s: float | None, detail: str | None) -> None:
    async def answer() -> HostJudge:
        judge = HostJudge(HostQueue[str](4), 0.0, 5)
        judge.record_failure("h", RowDropped(status, "no such name", wait_s=wait_s), began=0.0, retry_delay_s=None)
        return judge

    judge = asyncio.run(answer())
    assert judge.is_given_up("h") == (detail is not None)
    judge.check("another")
    if detail is None:
        judge.check("h")
    else:
        with pytest.raises(RowDropped) as dropped:
            judge.check("h")
        assert (dropped.value.status, dropped.value.detail) == (status, detail)


@pytest.mark.parametrize(
    ("status", "wait_s", "told"),
    [
        (Status.HTTP_5XX, None, (Status.HOST_DOWN, "not asked, as its host did not answer any more")),
        (Status.TIMEOUT, None, (Status.HOST_DOWN, "not asked, as its host did not answer any more")),
        (Status.HTTP_5XX, 0.0, (Status.HTTP_5XX, "not asked, as its host was busy all the time")),
        (Status.HTTP_429, None, (Status.HTTP_429, "not asked, as its host was busy all the time")),
    ],
)
def test_a_host_that_stays_so_is_given_up_as_down_or_busy(
    status: Status, wait_s: float | None, told: tuple[Status, str]
) -> None:
    async def answer() -> None:
        judge = HostJudge(HostQueue[str](4), 0.0, 1)
        for _ in range(MAX_OPENINGS + 1):
            judge.check("h")
            judge.record_failure("h", RowDropped(status, wait_s=wait_s), began=0.0, retry_delay_s=None)
        judge.check("h")

    with pytest.raises(RowDropped) as dropped:
        asyncio.run(answer())
    assert (dropped.value.status, dropped.value.detail) == told


def is_handed_out(delay_s: float, act: Callable[[HostJudge], None]) -> list[bool]:
    """Whether a first and a second request of a host are handed out at once, after what `act` does."""

    async def take() -> list[bool]:
        queue = HostQueue[str](4)
        act(HostJudge(queue, delay_s, None))
        queue.add("h", "1")
        queue.add("h", "2")
        takers = [asyncio.ensure_future(queue.take()) for _ in range(2)]
        for _ in range(9):
            await asyncio.sleep(0)
        handed_out = [taker.done() for taker in takers]
        for taker in takers:
            taker.cancel()
        return handed_out

    return asyncio.run(take())


def test_the_longer_of_both_delays_parts_requests() -> None:
    assert is_handed_out(0.0, lambda judge: judge.admit("h", 0.0)) == [True, True]
    assert is_handed_out(999.0, lambda judge: judge.admit("h", 0.0)) == [True, False]
    assert is_handed_out(0.0, lambda judge: judge.admit("h", 999.0)) == [True, False]


def test_an_answer_leaves_the_delay_that_the_host_asked_for() -> None:
    def answered(judge: HostJudge) -> None:
        judge.admit("h", 999.0)
        judge.record_response("h")

    assert is_handed_out(0.0, answered) == [True, False]


@pytest.mark.parametrize(
    ("status", "is_busy"), [(Status.TIMEOUT, False), (Status.HTTP_5XX, False), (Status.HTTP_429, True)]
)
def test_only_a_busy_host_is_left_alone_for_as_long_as_a_retry_waits(status: Status, is_busy: bool) -> None:
    def failed(judge: HostJudge) -> None:
        judge.record_failure("h", RowDropped(status), began=0.0, retry_delay_s=999.0)

    assert is_handed_out(0.0, failed) == [not is_busy, not is_busy]


def test_a_suspected_host_that_answers_is_asked_as_often_at_once_as_before() -> None:
    async def take() -> list[bool]:
        queue = HostQueue[str](4, initial_concurrency=1)
        judge = HostJudge(queue, 0.0, 1)
        judge.admit("h", 0.0)
        queue.suspect("h")
        for request in ("1", "2"):
            queue.add("h", request)
        takers = [asyncio.ensure_future(queue.take()) for _ in range(2)]
        handed_out = []
        for answer in (lambda _: None, judge.record_response):
            answer("h")
            for _ in range(9):
                await asyncio.sleep(0)
            handed_out.append(takers[1].done())
        for taker in takers:
            taker.cancel()
        return handed_out

    assert asyncio.run(take()) == [False, True]
