"""Work that a signal stops."""

import asyncio
import os
import signal
from types import FrameType

import pytest

from dreamloom.base.stop import run_stoppable


class Ended(BaseException):
    """As Prefect raises it: no KeyboardInterrupt, so that asyncio keeps it in the task that ran."""


def test_sigterm_ends_the_work_also_if_it_comes_while_one_of_its_tasks_runs() -> None:
    def end(number: int, frame: FrameType | None) -> None:
        raise Ended

    async def fetch() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    async def work() -> None:
        await asyncio.wait([asyncio.create_task(fetch())])  # as a crawler waits for its workers

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Ended):
            run_stoppable(work())
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
