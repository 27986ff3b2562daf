"""How the process of a tracked run ends: in time, though the server is away, and although its worker was killed."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

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


def survive_closed_streams() -> None:
    """Lets stdout and stderr of this process lead nowhere as soon as nobody reads them any more.

    The descriptors themselves are replaced, as handlers of logs keep streams of their own.
    """
    watched = select.poll()
    for descriptor in _OUTPUTS:
        with contextlib.suppress(OSError):
            watched.register(descriptor, 0)  # errors are told in any case

    def watch() -> None:
        for _ in _OUTPUTS:
            for descriptor, _ in watched.poll():
                watched.unregister(descriptor)
                with contextlib.suppress(OSError):
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, descriptor)
                    os.close(null)

    threading.Thread(target=watch, name="dreamloom-streams", daemon=True).start()


_OUTPUTS = (1, 2)
"""The descriptors of stdout and stderr."""
