"""Gathers what is odd about a training folder and stops nothing, to be told in a plan and in a run's log."""

from collections import Counter, defaultdict

from dreamloom.base.files.listing import left_out_note
from dreamloom.base.text import printable

LISTED = 5
"""Places that are named for each kind."""


class Notes:
    """Notes by kind. Of each kind, the first few places are named and the others counted."""

    def __init__(self) -> None:
        """Starts without notes."""
        self._places: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self.left_out = Counter[str]()  # images of systems and others (dreamloom.base.files.listing), by reason

    def __call__(self, kind: str, where: str) -> None:
        """Adds a note.

        Args:
            kind: what is odd, the same words for all that is odd in this way.
            where: a file, or a place in one.
        """
        self._counts[kind] += 1
        if len(self._places[kind]) < LISTED:
            self._places[kind].append(printable(where))

    def sentences(self) -> tuple[str, ...]:
        """Returns a sentence for each kind, in the order in which they were first noted."""
        sentences = [self._sentence(kind, places) for kind, places in self._places.items()]
        return (*sentences, *filter(None, [left_out_note(self.left_out)]))

    def _sentence(self, kind: str, places: list[str]) -> str:
        more = self._counts[kind] - len(places)
        return f"{kind}: {', '.join(places)}{f' and {more:,} more' if more else ''}."
