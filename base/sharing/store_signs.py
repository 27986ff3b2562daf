"""Signs of life of processes that work on a collection in a store.

<address>/.workers/<token>.json  a number that grows as long as the process lives
<cache>/workers/<token>          a file whose lock (flock) it holds, for those on its machine
"""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import make_folder
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.remote import Store
from dreamloom.base.sharing.folder_lock import is_locked
from dreamloom.base.sharing.workers import EXPIRY_S, FOLDER

_LOOK_S = 1.0
"""Seconds between two looks at another process."""
_LONGEST_GAP_S = 5.0
"""Seconds that count, at most, of those between two looks at another process: in longer ones, the store may be away."""


@dataclass
class _Watched:
    beat: Any
    looked: float
    silent: float = 0.0
    """Seconds in which it was looked at and gave no sign of life."""
    lives: bool | None = None
    """What was judged when it was looked at."""


class Signs:
    """The signs of life of this process, and what it sees of those of others.

    Args:
        address: of the collection.
        token: of this process.
    """

    def __init__(self, address: str, token: str) -> None:
        self._store, self._token = Store(address), token
        self._beats = 0
        self._watched: dict[str, _Watched] = {}
        self._lock = _lock_own(token)

    def give(self) -> None:
        """Gives a sign of life.

        Raises:
            UserError: the store can't be written to.
        """
        self._beats += 1
        self._store.put_json(_beat_name(self._token), self._beats)

    def forget(self) -> None:
        """Gives up the lock, as the process's death does."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def remove(self, token: str, patience_s: float | None) -> None:
        """Removes what a process left that is noted nowhere any more; see Store.remove."""
        with contextlib.suppress(OSError):
            _lock_path(token).unlink()
        self._store.remove(_beat_name(token), patience_s)

    def judge(self, token: str, is_here: bool, now: float) -> bool | None:
        """Judges whether a process lives; None: it was not watched for long enough.

        Args:
            token: of the process.
            is_here: whether it is on this machine.
            now: seconds by a clock that never goes back.

        Raises:
            UserError: the store can't be read.
        """
        lives = is_locked(_lock_path(token)) if is_here else None  # None also where that process has another cache
        return self._judge_beat(token, now) if lives is None else lives

    def _judge_beat(self, token: str, now: float) -> bool | None:
        known = self._watched.get(token)
        if known is not None and now - known.looked < _LOOK_S:
            return known.lives
        beat = self._read_beat(_beat_name(token))
        watched = self._watched.setdefault(token, _Watched(beat, now))
        if beat != watched.beat:
            self._watched[token] = _Watched(beat, now, lives=True)
            return True
        watched.silent += min(now - watched.looked, _LONGEST_GAP_S)
        watched.looked, watched.lives = now, None
        return False if watched.silent > EXPIRY_S else None

    def _read_beat(self, name: str) -> Any:
        try:
            return self._store.get_json(name)
        except UserError:
            if self._store.has(name):
                raise
        return None  # it left just now


def _beat_name(token: str) -> str:
    return f"{FOLDER}/{token}.json"


def _lock_path(token: str) -> Path:
    return cache_folder() / "workers" / token


def _lock_own(token: str) -> int:
    file = _lock_path(token)
    make_folder(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor
