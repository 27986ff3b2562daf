"""Ends work on Ctrl-C and SIGTERM: stops what is under way outside the main thread, and begins nothing new."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported when it is needed: every command imports this module
    import asyncio


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class Unfinished(Exception):
    """A signal asked for the end: what was done is saved and reported, and what was to follow is not begun."""


caught: list[int] = []
"""The signals that were answered by saving and stopping, in place of an exception."""

abandoned = threading.Event()
"""Set where threads of a library would hold up the end of the process, though all work is done."""

_guard = threading.RLock()  # a signal's handler may take it again
_running: dict[threading.Event, Callable[[], None]] = {}


def run_stoppable(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, in a thread of its own where this thread has a running event loop.

    `stop_all` cancels it; it may take a moment to clean up.
    """
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _sigterm_cancels():
            asyncio.run(_cancellable(work))
        return
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(asyncio.run, _cancellable(work))
        try:
            future.result()
        except KeyboardInterrupt:
            stop_all(None)
            raise


def stop_all(timeout_s: float | None) -> None:
    """Stops all stoppable work and waits until it has ended, at most for `timeout_s` seconds; None: forever."""
    with _guard:
        running = dict(_running)
    for stop in running.values():
        stop()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for ended in running:
        ended.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """Registers the block as work that `stop`, called from another thread, ends soon."""
    ended = threading.Event()
    with _guard:
        _running[ended] = stop
    try:
        yield
    finally:
        with _guard:
            del _running[ended]
        ended.set()


@contextlib.contextmanager
def _sigterm_cancels() -> Iterator[None]:
    """Lets SIGTERM stop the work, and calls its handler when the block has ended.

    Raised inside the loop, what a handler raises may be lost: asyncio keeps all but KeyboardInterrupt in the task that
    ran at that moment, which ends, while the work goes on without it.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        with _guard:
            running = list(_running.values())
        for stop in running:
            stop()

    signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if received:
            handler(received[0], None)


async def _cancellable(work: Coroutine[Any, Any, None]) -> None:
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    with stoppable(lambda: _cancel(loop, task)):
        await work


def _cancel(loop: "asyncio.AbstractEventLoop", task: "asyncio.Task[Any]") -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(task.cancel)
