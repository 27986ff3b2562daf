"""Ctrl-C for work that is not the main thread's own: it ends what is under way, and begins nothing new."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_guard = threading.Lock()
_running: dict[threading.Event, Callable[[], None]] = {}


def run_stoppable(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, in a thread of its own where this one has a loop that runs.

    When the user stops the program, it is cancelled, and may take a moment over that.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_registered(work))
        return
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(asyncio.run, _registered(work))
        try:
            future.result()
        except KeyboardInterrupt:
            stop_all(None)
            raise


def stop_all(within_s: float | None) -> None:
    """Stops all work that can be stopped, and waits until it has ended, at most so many seconds."""
    with _guard:
        running = dict(_running)
    for stop in running.values():
        stop()
    until = None if within_s is None else time.monotonic() + within_s
    for ended in running:
        ended.wait(None if until is None else max(0.0, until - time.monotonic()))


async def _registered(work: Coroutine[Any, Any, None]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    with stoppable(lambda: _cancel(loop, task)):
        await work


@contextlib.contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """Work that ends soon after `stop` is called, from another thread."""
    ended = threading.Event()
    with _guard:
        _running[ended] = stop
    try:
        yield
    finally:
        with _guard:
            del _running[ended]
        ended.set()


def _cancel(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
    with contextlib.suppress(RuntimeError):  # its loop has ended by itself
        loop.call_soon_threadsafe(task.cancel)
