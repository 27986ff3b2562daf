"""What the processes of a run tell each other beside the training: why one ended, and that they are alive.

A launcher ends the processes of its own machine when one of them dies. What happens on another machine it does not see,
and a process that waits for a dead one may wait for ever.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from dreamloom.base import processes
from dreamloom.base.errors import UserError, error_line
from dreamloom.train.loop.interrupt import Interrupted

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

SILENCE_S = 60.0
"""How long a process of another machine may give no sign of life."""
GRACE_S = 15.0
"""How long a process that was told to end may take for it by itself."""
_BEAT_S = 2.0
_ERROR = "error"
_GO_ON = "start the same command again on all machines; it goes on from the last checkpoint"
_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")
"""What the messages of torch's RuntimeError hold when another process is gone."""


class SignsOfLife:
    """Tells which processes have not given a sign of life for too long. No clock is compared with another.

    Args:
        own: this process's rank.
        now: seconds, of a clock that only goes forward.
    """

    def __init__(self, own: int, now: float) -> None:
        self.own = own
        self.seen: dict[int, tuple[bytes, float]] = {}
        self.looked = now

    def silent(self, beats: Sequence[bytes] | None, now: float) -> list[int]:
        """Returns the ranks that are silent.

        Args:
            beats: what each process has written last, by rank, which changes as long as it lives; None: the store does
                not answer, which is rank 0's silence.
            now: as in the constructor, a few seconds after the last call.
        """
        if now - self.looked > SILENCE_S / 2:  # this process was asleep, and so may have been the others
            self.seen = {rank: (beat, now) for rank, (beat, _) in self.seen.items()}
        self.looked = now
        for rank, beat in enumerate(beats or ()):
            if self.seen.get(rank, (None, now))[0] != beat:
                self.seen[rank] = beat, now
        if beats is None:
            self.seen.setdefault(0, (b"", now))
        return [rank for rank, (_, since) in self.seen.items() if rank != self.own and now - since > SILENCE_S]


class Peers:
    """The other processes, during the block: why it ended is told to them, and an error that is theirs is explained.

    Args:
        store: of the process group.
        end: ends this process when others are silent and it waits for them; called with the exit code.
    """

    def __init__(self, store: "Store", end: Callable[[int], NoReturn] = os._exit) -> None:
        self.store = store
        self.end = end
        self.rank, self.world_size = processes.rank(), processes.world_size()
        self.host = socket.gethostname()
        self.left = threading.Event()
        self.beats: list[bytes] | None = []
        self.hosts: list[str] = []
        self.told: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        """Begins to listen, where the processes are on several machines."""
        self.store.set(f"host {self.rank}", self.host)
        self.store.set(f"beat {self.rank}", "0")
        if processes.local_world_size() < self.world_size:
            ours = self.store.clone()  # a connection of its own, as a call may have to wait
            threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
            threading.Thread(target=self._judge, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tells the others of an error.

        Raises:
            UserError: the error is that of another process; one process of each machine says so.
            SystemExit: another one says it.
        """
        self.left.set()
        if error is None or isinstance(error, Interrupted):
            return
        if is_lost_connection(error):
            sentence = self._explain()
            if self._is_first_to_say():
                raise UserError(sentence) from error
            raise SystemExit(2) from error
        with suppress(RuntimeError):
            text = json.dumps({"host": self.host, "text": error_line(error)})
            self.store.compare_set(_ERROR, "", text)
            self._is_first_to_say()

    def _explain(self) -> str:
        with suppress(RuntimeError):
            if told := self.told or _read_error(self.store):
                return f"{told['host']}: {told['text']}"
        return f"Another process of this training ended, or can't be reached; {_GO_ON}."

    def _is_first_to_say(self) -> bool:
        try:
            return self.store.add(f"said on {self.host}", 1) == 1
        except RuntimeError:  # the store went with the main process
            return processes.local_rank() == 0

    def _listen(self, store: "Store") -> None:
        """Writes this process's signs of life, and reads the others'."""
        ranks, number = range(self.world_size), 0
        keys = [f"beat {rank}" for rank in ranks]
        with suppress(RuntimeError):
            self.hosts = [host.decode() for host in store.multi_get([f"host {rank}" for rank in ranks])]
        while not self.left.wait(_BEAT_S):
            number += 1
            try:
                store.set(keys[self.rank], str(number))
                self.beats = store.multi_get(keys)
                self.told = self.told or _read_error(store)
            except RuntimeError:
                self.beats = None

    def _judge(self) -> None:
        """Ends this process, after a while in which it may end by itself, when others are silent or ended."""
        life = SignsOfLife(self.rank, time.monotonic())
        while not self.left.wait(_BEAT_S):
            silent = life.silent(self.beats, time.monotonic())
            if not silent and not self.told:
                continue
            sentence = self._silence(silent) if silent else self._explain()
            if not self.left.wait(GRACE_S):
                sys.stderr.write(f"{sentence}\n")
                sys.stderr.flush()
                self.end(2)
            return

    def _silence(self, silent: Sequence[int]) -> str:
        where = [f"{rank} on {self.hosts[rank]}" if self.hosts else str(rank) for rank in silent]
        return f"No sign of life of training process {', '.join(where)} for {SILENCE_S:.0f} s; {_GO_ON}."


def is_lost_connection(error: BaseException) -> bool:
    """Tells whether an error says that another process is gone."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)


def _read_error(store: "Store") -> dict[str, Any] | None:
    return dict(json.loads(store.get(_ERROR))) if store.check([_ERROR]) else None
