"""How the process of a tracked run ends: in time, though the server is away, and although its worker was killed."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from dreamloom.base.stop import abandoned

SETTLE_SECONDS = 30.0
"""How long the end of a process waits at most for logs and events that Prefect has not sent yet."""


def settle(is_away: bool) -> None:
    """Waits a moment until Prefect has sent its logs and the states of tasks; else sets `abandoned`.

    At the end of a process Prefect waits for that without a limit: minutes for each event, where the server is away.
    """
    for worker in (EventsWorker, APILogWorker):
        drained = worker.drain_all(timeout=0.1 if is_away else SETTLE_SECONDS)
        if isinstance(drained, tuple) and drained[1]:  # done, and not done
            abandoned.set()


def end_in_time(is_away: Callable[[], bool]) -> None:
    """Ends this process, which a worker started, soon after its main thread has ended, whatever other threads do."""

    def watch() -> None:
        threading.main_thread().join()
        time.sleep(1.0 if is_away() else SETTLE_SECONDS)
        os._exit(0)  # the engine has ended, and what the worker is to know of that is the state

    threading.Thread(target=watch, name="dreamloom-ending", daemon=True).start()


class _Stream:
    """A text stream that is thrown away from the moment at which nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._throw_away()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._throw_away()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _throw_away(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def survive_closed_streams() -> None:
    """Makes stdout and stderr of this process survive the end of their readers. May be called again."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream))
