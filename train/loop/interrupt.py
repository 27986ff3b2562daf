"""SIGTERM and Ctrl-C: the first asks a run to save and stop, the second ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dreamloom.base.progress import Progress


class Interrupted(Exception):
    """Work that can be done again was broken off, because the run was asked to stop."""


class Stop:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.wanted = False

    def breaks(self, progress: Progress) -> Progress:
        """A progress that breaks off the work that calls it, once a stop is wanted, by raising Interrupted."""

        def watched(done: int, total: int | None, note: str = "") -> None:
            if self.wanted:
                raise Interrupted
            progress(done, total, note)

        return watched


@contextmanager
def on_signal() -> Iterator[Stop]:
    """Within, SIGTERM and Ctrl-C only set `wanted`; in another thread than the first, they do as before."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.wanted = True
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
