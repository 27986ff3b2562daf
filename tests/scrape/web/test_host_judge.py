"""Hosts that want to be left alone, or that no name leads to, are given up; those with errors of their own are not."""

import asyncio

import pytest

from dreamloom.scrape.collection import Status
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
