"""Which processes work on a collection in a store, on whichever machines, and what each has for itself.

    <document>.workers               token → who it is, and what it does
    <document>.leases                name → token of the worker that has it

Workers and leases are in the document that lists the collection's files (shared_document.py), so a part is committed
only where its worker still has it. A process of this machine is dead when nobody holds its lock. Of another's, an
observer sees whether its number still grows (store_signs.py), and counts the seconds by its own monotonic clock,
without those in which the store could not be asked: no two clocks are compared.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import process_token
from dreamloom.base.sharing.overlapping import Overlapping
from dreamloom.base.sharing.shared_document import Content, SharedDocument
from dreamloom.base.sharing.store_signs import Signs
from dreamloom.base.sharing.workers import EXPIRY_S, Work, agree, machine_id

_log = logging.getLogger(__name__)

_BEAT_S = 10.0
_LOOK_S = 1.0
_LEAVE_S = 10.0
"""How long a store is asked to note that a worker left, or gave something back: others notice that it did, anyway."""


class StoreWorker:
    """A process that works on a collection in a store."""

    def __init__(
        self,
        document: SharedDocument,
        work: Work | None = None,
        *,
        machine: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Enters.

        Args:
            document: of the collection.
            work: what is done; None: something that bears no other process beside it.
            machine: identifies the machine since it was booted; "": it can't be told. By default, this machine's.
            clock: returns seconds that never go back.

        Raises:
            UserError: another process works on it, on something else; or the store can't be written to.
        """
        self.document, self._clock = document, clock
        self.token = secrets.token_hex(8)
        self._machine = machine_id() if machine is None else machine
        self._ended, self._guard, self._struck_off = threading.Event(), threading.Lock(), False
        self._signs = Signs(document.address, self.token)
        try:
            document.require_conditions()
            self._signs.give()
            self._enter(work)
        except BaseException:
            self.leave()
            raise
        threading.Thread(target=self._beat_on, name="worker", daemon=True).start()

    # Entering and leaving

    def _enter(self, work: Work | None) -> None:
        told = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "machine": self._machine,
            "writer": process_token(),
            "work": None if work is None else dict(work),
        }

        def register(content: Content) -> list[str]:
            others = _disagreeing(content, self.token, work)
            if not others:
                content.setdefault("workers", {})[self.token] = told
            return others

        while others := self.document.change(register):
            self._wait_for(work, others)

    def check(self, work: Work | None) -> None:
        """Checks that nobody works here on something else.

        Raises:
            UserError: somebody does.
        """
        self._wait_for(work, _disagreeing(self.document.read(), self.token, work))

    def _wait_for(self, work: Work | None, others: list[str]) -> None:
        """Waits until each of these workers is known to be dead.

        Raises:
            UserError: one is alive.
        """
        while others:
            for token in others:
                if self._lives(token) is True:
                    raise UserError(
                        f"{self.document.address} is in use by another run ({self._describe(token)}); wait for it to "
                        "end, or stop it."
                    )
            others = _disagreeing(self.document.read(), self.token, work)
            if others:
                _log.info("%s: is %s still there?", self.document.address, self._describe(others[0]))
                self._ended.wait(_LOOK_S)

    def leave(self) -> None:
        """Leaves; what it has goes to the others."""
        self._ended.set()
        is_quiet = self._guard.acquire(timeout=_LEAVE_S)  # a sign of life under way would come after the last
        try:
            with contextlib.suppress(UserError):
                self._strike_off(self.token, patience_s=_LEAVE_S)
        finally:
            if is_quiet:
                self._guard.release()
        self._signs.forget()

    def forget(self) -> None:
        """Stops to give signs of life, as its death does."""
        self._ended.set()
        self._signs.forget()

    def _strike_off(self, token: str, patience_s: float | None = None) -> None:
        def strike(content: Content) -> None:
            content.get("workers", {}).pop(token, None)
            leases = content.get("leases", {})
            for name in [name for name, holder in leases.items() if holder == token]:
                del leases[name]
            for empty in [name for name in ("workers", "leases") if content.get(name) == {}]:
                del content[empty]

        self.document.change(strike, patience_s)
        self._signs.remove(token, patience_s)

    # Signs of life

    def _beat_on(self) -> None:
        while not self._ended.wait(_BEAT_S):
            self.beat()

    def beat(self) -> None:
        """Gives a sign of life, as a thread of the worker does every few seconds."""
        with self._guard, contextlib.suppress(UserError):  # the next one may succeed
            if not self._ended.is_set():
                self._signs.give()
                self._look_for_itself()

    def _look_for_itself(self) -> None:
        if not self._ended.is_set() and self.token not in self.document.read().get("workers", {}):
            self._struck_off = True

    def require_alive(self, *, look: bool = False) -> None:
        """Checks that nobody took this worker for dead, as a machine that slept may be.

        Args:
            look: looks now; otherwise what the last sign of life found counts, which costs nothing.

        Raises:
            UserError: somebody did.
        """
        if look and not self._struck_off:
            self._look_for_itself()
        if self._struck_off:
            raise _taken_for_dead(self.document.address)

    def require_lease(self, content: Content, name: str) -> None:
        """Checks, in a change of the document, that this worker may write what a name stands for.

        Raises:
            UserError: others took it for dead, or one of them has it.
        """
        holder = content.get("leases", {}).get(name, self.token)
        if self.token not in content.get("workers", {}) or holder != self.token:
            self._struck_off = True
            raise _taken_for_dead(self.document.address)

    def writers(self) -> set[str]:
        """Returns the tokens (atomic.process_token) of the workers that are not known to be dead."""
        return {process_token(), *(str(told.get("writer")) for told in self._others().values())}

    def count(self) -> int:
        """Returns the number of workers that are not known to be dead, with this one."""
        return 1 + len(self._others())

    def _others(self) -> dict[str, Any]:
        workers: dict[str, Any] = self.document.read().get("workers", {})
        others = {token: told for token, told in workers.items() if token != self.token}
        return {token: told for token, told in others.items() if self._lives(token) is not False}

    def _lives(self, token: str) -> bool | None:
        """Judges whether a worker lives; None: it was not watched for long enough. A dead one is struck off."""
        told = self.document.glance().get("workers", {}).get(token)
        if told is None:
            return False
        is_here = bool(self._machine) and told.get("machine") == self._machine
        state = self._signs.judge(token, is_here, self._clock())
        if state is False:
            self._strike_off(token)
        return state

    # Leases

    def lease(self, name: str) -> "StoreLease | None":
        """Leases something, unless a worker has it that may be alive.

        Raises:
            UserError: others took this worker for dead.
        """
        holder = self.document.read().get("leases", {}).get(name)
        if holder is not None and self._lives(holder) is not False:
            return None

        def take(content: Content) -> bool:
            if self.token not in content.get("workers", {}):
                raise _taken_for_dead(self.document.address)
            leases: dict[str, str] = content.setdefault("leases", {})
            return leases.setdefault(name, self.token) == self.token

        return StoreLease(self, name) if self.document.change(take) else None

    def describe_holder(self, name: str) -> str:
        """Names, for people, the process that has something; empty where nobody has."""
        holder = self.document.glance().get("leases", {}).get(name)
        return "" if holder is None else self._describe(holder)

    def remove_leases_of_dead(self) -> None:
        """Strikes off the dead, and so gives back what they had."""
        self._others()

    def _describe(self, token: str) -> str:
        told = self.document.glance().get("workers", {}).get(token, {})
        host = told.get("host", "")
        return f"process {told.get('process', 'unknown')}" + (f" on {host}" if host != socket.gethostname() else "")


@dataclass(frozen=True)
class StoreLease:
    """Something that a worker has for itself."""

    worker: StoreWorker
    name: str

    def release(self) -> None:
        """Gives it back, unless the store is away: then it is free when the worker leaves."""

        def give(content: Content) -> None:
            leases = content.get("leases", {})
            if leases.get(self.name) == self.worker.token:
                del leases[self.name]
            if leases == {}:
                content.pop("leases", None)

        with contextlib.suppress(UserError):
            self.worker.document.change(give, _LEAVE_S)


def _disagreeing(content: Content, token: str, work: Work | None) -> list[str]:
    workers = content.get("workers", {})
    return [other for other, told in workers.items() if other != token and not agree(work, told.get("work"))]


def _taken_for_dead(address: str) -> UserError:
    return UserError(
        f"This process gave no sign of life in {address} for {EXPIRY_S:.0f} s, so others do its work there now; the "
        "same command takes part again."
    )


_working = Overlapping[str, StoreWorker]()  # address → this process as a worker


@contextlib.contextmanager
def work_at(document: SharedDocument, work: Work | None = None) -> Iterator[StoreWorker]:
    """Works on a collection in a store until the block ends; blocks of one process may overlap.

    Args:
        document: of the collection.
        work: what is done there; None: something that bears no other process beside it.

    Raises:
        UserError: another process works there, on something else; or the store can't be written to.
    """
    with _working.hold(
        document.address, lambda: StoreWorker(document, work), StoreWorker.leave, lambda worker: worker.check(work)
    ) as worker:
        yield worker


def _forget_all() -> None:
    """Closes in a fork what its parent holds, who would seem to live for as long as the fork does."""
    for worker in _working.forget():
        worker.forget()


os.register_at_fork(after_in_child=_forget_all)
