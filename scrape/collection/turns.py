"""How processes that make the same table share its parts: each leases the first part that nobody has.

A process that finds nothing to lease waits for the others, and takes over the parts of one that dies or fails.
"""

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection.collection import Collection
from dreamloom.scrape.collection.place import Lease, Worker
from dreamloom.scrape.collection.schema import Table

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
"""Seconds between two looks at parts that others have."""

RunPart = Callable[[str, Callable[[], Summary]], Summary]
"""Makes a part, given its name, by calling the function."""
part_runner: ContextVar[RunPart] = ContextVar("part_runner", default=lambda _, make: make())
"""Set by whoever shows the parts one by one, as a dashboard does. Calls the function, and returns what it returns."""


@dataclass(frozen=True)
class Order:
    """Says that each part is finished after those before it."""

    prepare: Callable[[str, Progress], object] | None = None
    """Does, and keeps, what can be done of a part before; None: nothing."""


def lease_part(worker: Worker, table: Table, part: str) -> Lease | None:
    """Leases a part, unless another process has it."""
    return worker.lease(f"{table}-{part}")


@dataclass
class Turns:
    """The parts that a process has yet to make, or to see made by others."""

    worker: Worker
    collection: Collection
    table: Table
    recipes: Mapping[str, str]
    make: Callable[[str, Progress], Summary]
    progress: Progress
    order: Order | None
    pending: list[str]
    """Names of parts, sorted."""
    made: set[str] = field(default_factory=set)
    """Parts that this process made."""
    errors: list[Exception] = field(default_factory=list)
    """Of the parts that failed here. Each is tried once."""

    def __post_init__(self) -> None:
        self._count = len(self.pending)
        self._prepared: set[str] = set()
        self._totals: dict[str, int] = {}  # of the parts that were worked on here

    def take(self) -> None:
        """Makes every pending part that is free, until all are made or have failed.

        Raises:
            UserError: as `make` does; or others took this process for dead.
        """
        pause = _FIRST_PAUSE_S
        while self.pending:
            self.collection.place.refresh()
            if any(map(self._advance, self.pending)):  # which stops at the first: then the list has changed
                pause = _FIRST_PAUSE_S
                continue
            holder = self.worker.describe_holder(f"{self.table}-{self.pending[0]}")
            self.progress(self._count - len(self.pending), None, f"waiting for {holder or 'another run'}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _advance(self, part: str) -> bool:
        """Makes a part, or prepares it, if no other process has it. Returns whether anything was done."""
        is_due = self._is_due(part)
        prepare = None if is_due or self.order is None else self.order.prepare
        if not is_due and (prepare is None or part in self._prepared):
            return False
        leased = lease_part(self.worker, self.table, part)
        if leased is None:
            return False
        try:
            self.collection.place.refresh()
            if self._is_made(part):  # by another process, since
                self.pending.remove(part)
            else:
                self.collection.place.begin(self.table, part)
                self._attempt(part, prepare)
        finally:
            leased.release()
        return True

    def _attempt(self, part: str, prepare: Callable[[str, Progress], object] | None) -> None:
        progress = self._progress_of(part)
        try:
            if prepare is not None:
                prepare(part, progress)
                self._prepared.add(part)
                return
            part_runner.get()(part, partial(self.make, part, progress))
            self.made.add(part)
        except UserError:
            raise
        except (OSError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            error.add_note(f"in part {part} of {self.collection.where}/{self.table}")
            self.errors.append(error)
        self.pending.remove(part)

    def _is_made(self, part: str) -> bool:
        return self.collection.recipe(self.table, part) == self.recipes[part]

    def _is_due(self, part: str) -> bool:
        """Whether a part can be finished: what must come before it is made, or has failed here."""
        return self.order is None or not any(not self._is_made(p) for p in self.pending if p < part)

    def _progress_of(self, part: str) -> Progress:
        """Returns the progress of one part, among all parts; it ends the work of a process taken for dead.

        Parts that were not worked on here yet count as this one.
        """
        number, count = self._count - len(self.pending), self._count
        known = [total for name, total in self._totals.items() if name not in self.pending]

        def report(done: int, total: int | None, note: str = "") -> None:
            self.worker.require_alive()
            if count == 1:
                self.progress(done, total, note)
                return
            if total is not None:
                self._totals[part] = total
            like_this = total or 0
            before = sum(known) + like_this * (number - len(known))
            total_of_all = None if total is None else before + total * (count - number)
            self.progress(before + done, total_of_all, f"part {number + 1} of {count} {note}".rstrip())

        return report
