"""How a stage tells whoever called it how far it is, without knowing who that is."""

from typing import Protocol


class Progress(Protocol):
    """Called as often as the work likes; whoever shows it decides how often to redraw."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """`done` of `total` units (None: not known yet) are finished; `note` is a short line of counts."""


def silent(done: int, total: int | None, note: str = "") -> None:
    """The progress of a caller who does not look."""
