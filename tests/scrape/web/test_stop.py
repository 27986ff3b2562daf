"""Ctrl-C: what is under way ends, nothing new begins, and the same command goes on from there."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from dreamloom.base.stop import run_stoppable, stop_all
from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Collection, Table

FLAGS = ["--allow-private-addresses", "--min-side=16", "--retries=0", "--concurrency-per-host=4", "--timeout-s=600"]


def command(collection: Collection) -> list[str]:
    return [sys.executable, "-m", "dreamloom.flows.commands.cli", "scrape", str(collection.root), *FLAGS]


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [True, False], ids=["answers that come", "answers that never come"])
def test_ctrl_c_lets_what_is_under_way_end(site: Any, collection: Collection, ends: bool) -> None:
    free = asyncio.Event()

    def held(number: int) -> Any:
        async def answer(_: web.Request) -> web.StreamResponse:
            await free.wait()
            return web.Response(body=site.image(number))

        return answer

    quick = [site.put(f"/quick/{n}", site.image(100 + n)) for n in range(3)]
    slow = [site.handle(f"/slow/{n}", held(n)) for n in range(8)]
    site.candidates(collection, [*quick, *slow])
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background programs inherit deafness
    running = subprocess.Popen(
        command(collection), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    until(lambda: sum(site.hits[f"/slow/{n}"] for n in range(8)) == 4)
    running.send_signal(signal.SIGINT)
    if ends:
        time.sleep(1)  # the signal comes before the answers, also on a busy machine
        site.loop.call_soon_threadsafe(free.set)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "run the same command to continue" in errors
    assert site.hits.total() == 7
    assert not collection.parts(Table.RECORDS)
    site.loop.call_soon_threadsafe(free.set)
    assert run(command(collection)[3:]) == 0
    assert collection.summary(Table.RECORDS).kept == 11
    assert site.hits.total() == (11 if ends else 15)


def test_work_in_another_thread_is_stopped_too() -> None:
    """As where sources come in side by side, each in a thread of its own."""

    seen = []
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            seen.append("ended")
            raise

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            run_stoppable(work())

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    stop_all(30)
    assert seen == ["ended"]
    thread.join()
