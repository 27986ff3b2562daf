"""How a stage reports its progress to its caller."""

from typing import Protocol


class Progress(Protocol):
    """A callback for progress. Stages may call it as often as they like; whoever shows it decides when to redraw."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Reports that `done` of `total` units are finished.

        Args:
            total: None while it is not known.
            note: a short line of counts.
        """


def silent(done: int, total: int | None, note: str = "") -> None:
    """Ignores the progress."""
