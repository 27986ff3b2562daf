"""Which processes work in a folder, on one machine or on several that share it, and which of them are alive.

    <folder>/.workers/worker-<token>@<machine>    a process that works here; it touches the file as long as it lives

A process of this machine is dead when nobody holds the lock (flock) of its file. Of another machine's, an observer sees
whether the file is still touched, and counts the seconds by its own monotonic clock: no two clocks are compared. The
dead are struck off by removing their file.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import make_folder, process_token
from dreamloom.base.sharing.leases import Lease, describe_holder, lease, remove_leases_of_dead
from dreamloom.base.sharing.overlapping import Overlapping

_log = logging.getLogger(__name__)

FOLDER = ".workers"
BEAT_S = 5.0
"""Seconds between two signs of life."""
EXPIRY_S = 60.0
"""Seconds without a sign of life after which a process of another machine is dead; NFS may show old times for as long
(acregmax in nfs(5))."""
_LOOK_S = 1.0

Work = Mapping[str, str]
"""What a process does, by subject. Processes may work beside each other if they agree on all subjects in common."""


class _State(Enum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "not watched for long enough"


class Worker:
    """A process that works in a folder."""

    def __init__(
        self,
        folder: Path,
        work: Work | None = None,
        *,
        machine: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Enters the folder.

        Args:
            folder: made unless it exists.
            work: what is done in it; None: something that bears no other process beside it.
            machine: identifies the machine since it was booted; "": it can't be told. By default, this machine's.
            clock: returns seconds that never go back.

        Raises:
            UserError: another process works here, on something else.
        """
        self.folder, self._clock = folder, clock
        self._beats: dict[str, tuple[int, float]] = {}  # file → its time, and when it was first seen to have it
        self._ended, self._guard = threading.Event(), threading.Lock()
        self._struck_off = False
        make_folder(folder / FOLDER)
        self.place = os.open(folder / FOLDER, os.O_RDONLY | os.O_DIRECTORY)  # stays valid where the folder is renamed
        self._descriptor, self.file = -1, ""
        try:
            with self._entrance() as has_locks:
                self._machine = (machine_id() if machine is None else machine) if has_locks else ""
                self._register(work)
                doubtful = self._find_disagreeing(work)
            self._watch(work, doubtful)
        except BaseException:
            self.leave()
            raise
        threading.Thread(target=self._beat_on, name="worker", daemon=True).start()

    # Entering and leaving

    @contextlib.contextmanager
    def _entrance(self) -> Iterator[bool]:
        """Lets processes of one machine enter one by one, so that of two that disagree one gets in.

        Yields:
            Whether the file system has locks.
        """
        entrance = os.open("entrance", os.O_RDWR | os.O_CREAT, 0o644, dir_fd=self.place)
        try:
            has_locks = True
            try:
                fcntl.flock(entrance, fcntl.LOCK_EX)
            except OSError:
                has_locks = False
            yield has_locks
        finally:
            os.close(entrance)

    def _register(self, work: Work | None) -> None:
        """Makes the worker's file, which has its name when it is locked and written; call it in the entrance."""
        self.remove(*(name for name in self.names() if _is_entering(name, self._machine)))  # killed there
        entering, self.file = (f"{state}-{secrets.token_hex(8)}@{self._machine}" for state in ("entering", "worker"))
        told = {"worker": self.file, "process": os.getpid(), "host": socket.gethostname(), "writer": process_token()}
        self.told = json.dumps({**told, "work": None if work is None else dict(work)}).encode()
        self._descriptor = os.open(entering, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=self.place)
        if self._machine:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._descriptor, self.told)
        os.rename(entering, self.file, src_dir_fd=self.place, dst_dir_fd=self.place)

    def leave(self) -> None:
        """Leaves the folder."""
        with self._guard:
            self.remove(self.file)
            self.forget()

    def forget(self) -> None:
        """Closes the worker's files, as its death does."""
        self._ended.set()
        for descriptor in {self._descriptor, self.place} - {-1}:
            os.close(descriptor)
        self._descriptor = self.place = -1

    def check(self, work: Work | None) -> None:
        """Checks that nobody works here on something else.

        Raises:
            UserError: somebody does.
        """
        self._watch(work, self._find_disagreeing(work))

    def _find_disagreeing(self, work: Work | None) -> list[str]:
        return [file for file, told in self._others().items() if not agree(work, told.get("work"))]

    def _watch(self, work: Work | None, files: list[str]) -> None:
        """Waits until each of these workers is known to be dead, or to do nothing else than `work`.

        Raises:
            UserError: one is alive, and does something else.
        """
        while files:
            files = [file for file in files if not agree(work, (self.read(file) or {}).get("work"))]
            states = {file: self._look(file) for file in files}
            alive = next((file for file, state in states.items() if state is _State.ALIVE), None)
            if alive is not None:
                raise UserError(
                    f"{self.folder} is in use by another run ({self.describe(alive)}); wait for it to end, or stop it."
                )
            files = [file for file, state in states.items() if state is _State.UNKNOWN]
            if files:
                _log.info("%s: is %s still there?", self.folder, self.describe(files[0]))
                self._ended.wait(_LOOK_S)

    # Signs of life

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.beat()

    def beat(self) -> None:
        """Gives a sign of life, as a thread of the worker does every few seconds."""
        with self._guard, contextlib.suppress(OSError):  # the next one may succeed
            if not self._ended.is_set():
                os.utime(self._descriptor)
                self._struck_off = self._struck_off or self.read(self.file) is None

    def require_alive(self, *, look: bool = False) -> None:
        """Checks that nobody took this worker for dead, as a machine that slept, or a folder that was away, may be.

        Args:
            look: looks now; otherwise what the last sign of life found counts, which costs nothing.

        Raises:
            UserError: somebody did.
        """
        self._struck_off = self._struck_off or (look and self.read(self.file) is None)
        if self._struck_off:
            raise UserError(
                f"This process gave no sign of life in {self.folder} for {EXPIRY_S:.0f} s, so others do its work there "
                "now; the same command takes part again."
            )

    def writers(self) -> set[str]:
        """Returns the tokens (atomic.process_token) of the workers that are not known to be dead."""
        return {process_token(), *(str(told.get("writer")) for told in self._others().values())}

    def count(self) -> int:
        """Returns the number of workers that are not known to be dead, with this one."""
        return 1 + len(self._others())

    def lease(self, name: str) -> Lease | None:
        """Leases something; see dreamloom.base.sharing.leases."""
        return lease(self, name)

    def describe_holder(self, name: str) -> str:
        """Names, for people, the process that has something; empty where nobody has."""
        return describe_holder(self, name)

    def remove_leases_of_dead(self) -> None:
        """Removes what the dead had, and nobody has leased since."""
        remove_leases_of_dead(self)

    def is_dead(self, file: str) -> bool:
        """Whether the worker of a file is known to be dead."""
        return file != self.file and self._look(file) is _State.DEAD

    def _others(self) -> dict[str, dict[str, Any]]:
        """Returns file → what it tells, of the other workers that are not known to be dead."""
        files = [name for name in self.names() if name.startswith("worker-") and name != self.file]
        return {file: self.read(file) or {} for file in files if not self.is_dead(file)}

    def _look(self, file: str) -> _State:
        """Judges by its file whether a worker lives. A dead one is struck off."""
        try:
            descriptor = os.open(file, os.O_RDONLY, dir_fd=self.place)
        except FileNotFoundError:
            return _State.DEAD
        try:
            if self._machine and file.rpartition("@")[2] == self._machine:
                state = _State.DEAD if _is_unlocked(descriptor) else _State.ALIVE
            else:
                state = self._judge_beat(file, os.fstat(descriptor).st_mtime_ns)
        finally:
            os.close(descriptor)
        if state is _State.DEAD:
            self.remove(file)
        return state

    def _judge_beat(self, file: str, beat: int) -> _State:
        now = self._clock()
        last, since = self._beats.setdefault(file, (beat, now))
        if beat != last:
            self._beats[file] = (beat, now)
            return _State.ALIVE
        return _State.DEAD if now - since > EXPIRY_S else _State.UNKNOWN

    # Files

    def names(self) -> list[str]:
        """Lists the folder as it is now.

        By a descriptor of its own: through one that is open already, btrfs shows no file that was made since.
        """
        try:
            place = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.place)
        except FileNotFoundError:  # somebody removed it
            return []
        try:
            return os.listdir(place)
        finally:
            os.close(place)

    def describe(self, file: str) -> str:
        """Names, for people, the process that a worker's file tells of."""
        told = self.read(file) or {}
        host = told.get("host", "")
        return f"process {told.get('process', 'unknown')}" + (f" on {host}" if host != socket.gethostname() else "")

    def read(self, file: str) -> dict[str, Any] | None:
        """Returns what a file tells; empty while it is written, None where it is not there."""
        try:
            descriptor = os.open(file, os.O_RDONLY, dir_fd=self.place)
        except FileNotFoundError:
            return None
        try:
            return dict(json.loads(os.read(descriptor, 2**20)))
        except ValueError:
            return {}
        finally:
            os.close(descriptor)

    def remove(self, *files: str) -> None:
        """Removes files of the folder, in this order, as far as they are there."""
        for file in filter(None, files):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file, dir_fd=self.place)


_working = Overlapping[Path, Worker]()  # folder → this process as a worker


@contextlib.contextmanager
def work_in(folder: Path, work: Work | None = None) -> Iterator[Worker]:
    """Works in a folder until the block ends; blocks of one process may overlap.

    Args:
        folder: made unless it exists.
        work: what is done there; None: something that bears no other process beside it.

    Raises:
        UserError: another process works there, on something else.
    """
    with _working.hold(
        folder.resolve(), lambda: Worker(folder, work), Worker.leave, lambda worker: worker.check(work)
    ) as worker:
        yield worker


def _forget_all() -> None:
    """Closes in a fork what its parent holds, who would seem to live for as long as the fork does."""
    for worker in _working.forget():
        worker.forget()


os.register_at_fork(after_in_child=_forget_all)


def agree(one: Work | None, other: Work | None) -> bool:
    """Tells whether two processes may work beside each other."""
    return one is not None and other is not None and all(one[each] == other[each] for each in one.keys() & other.keys())


def _is_entering(name: str, machine: str) -> bool:
    return bool(machine) and name.startswith("entering-") and name.endswith(f"@{machine}")


def _is_unlocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def machine_id() -> str:
    """Identifies this machine since it was booted; its containers have the same name, and the same locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
