"""Leases: what one of the workers in a folder (workers.py) has for itself, until it gives it back or dies.

    <folder>/.workers/lease-<name>.<turn>    a hard link to the file of the worker that has it

A link is made by one process only, so a turn has one holder. What a dead worker had is leased again by a further turn.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Worker(Protocol):
    """What is needed of a worker (dreamloom.base.sharing.workers.Worker)."""

    place: int
    file: str
    told: bytes

    def require_alive(self, *, look: bool = False) -> None:
        """Checks that nobody took this worker for dead."""

    def is_dead(self, file: str) -> bool:
        """Whether the worker of a file is known to be dead."""

    def describe(self, file: str) -> str:
        """Names, for people, the process that a worker's file tells of."""

    def names(self) -> list[str]:
        """Lists the folder as it is now."""

    def read(self, file: str) -> dict[str, Any] | None:
        """Returns what a file tells; empty while it is written, None where it is not there."""

    def remove(self, *files: str) -> None:
        """Removes files of the folder, in this order, as far as they are there."""


@dataclass(frozen=True)
class Lease:
    """Something that a worker has for itself."""

    worker: Worker
    file: str
    earlier: tuple[str, ...]
    """The files of earlier turns, whose holders are dead."""

    def release(self) -> None:
        """Gives it back."""
        if _holder(self.worker, self.file) == self.worker.file:  # not so where others took the worker for dead
            self.worker.remove(*self.earlier, self.file)


def lease(worker: Worker, name: str) -> Lease | None:
    """Leases something, unless a worker has it that may be alive.

    Raises:
        UserError: others took this worker for dead.
    """
    worker.require_alive(look=True)
    earlier = _turns(worker, name)
    # a lease that names nobody is being written, or its writer died at that: then its own file is watched
    if not all(worker.is_dead(holder or file) for file, holder in earlier.items()):
        return None
    file = f"lease-{name}.{1 + max(map(_turn_of, earlier), default=-1)}"
    if not _create(worker, file):
        return None
    if _turns(worker, name) != {**earlier, file: worker.file}:  # others were at it, too, and may have it
        worker.remove(file)
        return None
    return Lease(worker, file, tuple(earlier))


def describe_holder(worker: Worker, name: str) -> str:
    """Names, for people, the process that has something; empty where nobody has."""
    turns = _turns(worker, name)
    return worker.describe(list(turns)[-1]) if turns else ""


def remove_leases_of_dead(worker: Worker) -> None:
    """Removes what the dead had, and nobody has leased since."""
    for file in worker.names():
        holder = _holder(worker, file) if file.startswith("lease-") else None
        if holder is not None and worker.is_dead(holder or file):
            worker.remove(file)


def _turns(worker: Worker, name: str) -> Mapping[str, str]:
    """Returns the files of something's leases in the order of their turns, each with its holder's file."""
    files = [file for file in worker.names() if file.startswith(f"lease-{name}.")]
    holders = {file: _holder(worker, file) for file in sorted(files, key=_turn_of)}
    return {file: holder for file, holder in holders.items() if holder is not None}


def _holder(worker: Worker, file: str) -> str | None:
    """Returns the holder that a lease's file names; empty while it is written, None where it is not there."""
    told = worker.read(file)
    return None if told is None else str(told.get("worker", ""))


def _turn_of(file: str) -> int:
    return int(file.rpartition(".")[2])


def _create(worker: Worker, file: str) -> bool:
    """Makes the file of a lease, unless it exists; returns whether it did."""
    try:
        os.link(worker.file, file, src_dir_fd=worker.place, dst_dir_fd=worker.place)
    except (FileExistsError, FileNotFoundError):  # it exists; or the worker was struck off just now
        return False
    except OSError:  # a file system without links
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=worker.place)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, worker.told)
        finally:
            os.close(descriptor)
    return True
