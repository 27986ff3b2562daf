"""What a process has once for as long as any of its blocks needs it: a lock of a folder, a place among the workers."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Held = TypeVar("Held")


class Overlapping(Generic[Key, Held]):
    """Things that blocks of this process share, which may overlap in any order and thread."""

    def __init__(self) -> None:
        self._held: dict[Key, tuple[Held, int]] = {}  # with the number of blocks that have it
        self._guard = threading.Lock()

    @contextmanager
    def hold(
        self,
        key: Key,
        take: Callable[[], Held],
        leave: Callable[[Held], object],
        check: Callable[[Held], object] = lambda _: None,
    ) -> Iterator[Held]:
        """Holds something during the block.

        Args:
            key: what it is of.
            take: gets it for the first block.
            leave: gives it back after the last one.
            check: looks at what others have already; if it raises, this block does not begin.
        """
        with self._guard:
            held, blocks = self._held.get(key) or (take(), 0)
            if blocks:
                check(held)
            self._held[key] = (held, blocks + 1)
        try:
            yield held
        finally:
            with self._guard:
                held, blocks = self._held.pop(key)
                if blocks > 1:
                    self._held[key] = (held, blocks - 1)
                else:
                    leave(held)

    def forget(self) -> list[Held]:
        """Forgets all without giving it back, in a fork, whose parent has it. Returns what that has."""
        held = [each for each, _ in self._held.values()]
        self._held.clear()
        return held
