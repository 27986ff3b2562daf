"""Handles SIGTERM and Ctrl-C: the first asks a run to save and stop, the second ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dreamloom.base.progress import Progress
from dreamloom.base.stop import caught


class Interrupted(Exception):
    """Work that can be repeated was broken off, because the run was asked to stop."""


class StopRequest:
    """Tells whether the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def interrupting(self, progress: Progress) -> Progress:
        """Returns a progress that raises Interrupted in the work that calls it, once a stop is requested."""

        def call(done: int, total: int | None, note: str = "") -> None:
            if self.requested:
                raise Interrupted
            progress(done, total, note)

        return call


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turns the first SIGTERM or Ctrl-C inside the block into a request to stop.

    The second one has its usual effect. Outside the main thread no signal is caught.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        caught.append(number)
        restore()

    for number in handlers:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
