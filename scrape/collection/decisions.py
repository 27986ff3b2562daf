"""Decisions about single images: what somebody, or a rule, said of them. Stages heed them by recipe.

    <collection>/decisions/00000.parquet     one part per command, never changed, in the order in which they were taken

Decisions are told by key, so they outlive the tables. For each key and subject (`SUBJECTS`) the last word counts, and
a hand's word counts before a rule's, whichever came later. An undo is a row, too: it takes the last word back, so the
one before it counts again.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.tables.parquet_metadata import read_metadata

FOLDER = "decisions"
HAND = "hand"
"""Who decided, where it was a person who pointed at the image."""


class What(StrEnum):
    """What a decision says. The names are stable: exports rely on them."""

    KEEP = "keep"
    """It goes on, whatever the rules of choose say."""
    DROP = "drop"
    """It does not go on."""
    CAPTION = "caption"
    """Its caption; it is not edited."""
    CROP = "crop"
    """The part that is shown: left, top, right, bottom, in pixels, or in shares of the sides where all are ≤ 1."""
    FOCUS = "focus"
    """The point that crops keep as near to the middle as they can: x,y, in shares of the sides of what is shown."""
    FLIP = "flip"
    """Whether it may be mirrored: yes or no."""
    MULTIPLY = "multiply"
    """How often it is shown for each time that another image of its source is."""
    LOSS_SCALE = "loss_scale"
    """The factor of its loss."""
    ROLE = "role"
    """Its role, in place of its source's: witness, which is never trained on."""
    IMAGE = "image"
    """A file of `images_folder` that takes its image's place."""


MIDDLE = "0.5,0.5"
"""The focus of an image of which none was decided."""

SUBJECTS: Mapping[What, str] = {what: str(what) for what in What} | {What.KEEP: "choice", What.DROP: "choice"}
"""What → what it is about. A keep takes the place of a drop, and the other way round."""

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("time", pa.string(), nullable=False),  # of the command, UTC: 2026-11-27T22:40:00.123456Z
        pa.field("what", pa.string(), nullable=False),  # What
        pa.field("value", pa.string()),  # null for keep and drop
        pa.field("reason", pa.string()),
        pa.field("who", pa.string(), nullable=False),  # HAND, or the rule: "where aesthetic < 4"
        pa.field("undo", pa.bool_(), nullable=False),  # takes the last word of this key and subject back
    ]
)


class Decision(NamedTuple):
    """A row of the table."""

    key: str
    time: str
    what: What
    value: str | None = None
    reason: str | None = None
    who: str = HAND
    undo: bool = False

    @property
    def subject(self) -> tuple[str, str]:
        """What it is about: the key, and the subject of what it says."""
        return self.key, SUBJECTS[self.what]

    def __str__(self) -> str:
        """Returns it in words: "drop, by hand (blurred)"."""
        value = "" if self.value is None else f": {self.value}"
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.what}{value}, by {self.who}{reason}"


class Decisions:
    """The decisions of a collection.

    Args:
        rows: all rows of the table, in order.
    """

    def __init__(self, rows: Sequence[Decision]) -> None:
        """Stores the rows."""
        self.rows = rows

    @cached_property
    def words(self) -> dict[tuple[str, str], list[Decision]]:
        """Returns key and subject → the decisions that were not taken back, in order."""
        words: dict[tuple[str, str], list[Decision]] = {}
        for row in self.rows:
            if not row.undo:
                words.setdefault(row.subject, []).append(row)
            elif said := words.get(row.subject):
                said.pop()
        return {subject: said for subject, said in words.items() if said}

    def standing(self, *whats: What) -> dict[str, Decision]:
        """Returns key → the decision that counts, of one subject.

        Args:
            whats: what it may say; all of one subject.
        """
        (subject,) = {SUBJECTS[what] for what in whats}
        counting = ((key, _counting(said)) for (key, of), said in self.words.items() if of == subject)
        return {key: decision for key, decision in counting if decision.what in whats}

    def counting(self) -> list[Decision]:
        """Returns the decision that counts of each key and subject."""
        return [_counting(said) for said in self.words.values()]

    def last(self) -> list[Decision]:
        """Returns the decisions of the last command that were not taken back."""
        tops = [said[-1] for said in self.words.values()]
        newest = max((decision.time for decision in tops), default="")
        return [decision for decision in tops if decision.time == newest]


def _counting(said: Sequence[Decision]) -> Decision:
    return next((decision for decision in reversed(said) if decision.who == HAND), said[-1])


def digest(decisions: Iterable[Decision]) -> str:
    """Returns a hash of what decisions say, whenever they were taken, for recipes; empty where there is none."""
    said = sorted((d.key, d.what, d.value or "", d.reason or "", d.who) for d in decisions)
    return hashlib.blake2b(repr(said).encode(errors="surrogatepass"), digest_size=16).hexdigest() if said else ""


def read_decisions(collection: Path) -> Decisions:
    """Reads the decisions of a collection in a folder; see `read_decision_files`."""
    return read_decision_files(decision_parts(collection))


def read_decision_files(parts: Iterable[Path]) -> Decisions:
    """Reads the decisions of a collection.

    Args:
        parts: their files, in order.

    Raises:
        UserError: a part can't be read, or a newer release wrote it in another way.
    """
    rows: list[Decision] = []
    for part in parts:
        read_metadata(part, "nothing")  # which refuses a newer major version
        try:
            table = pq.read_table(part, schema=SCHEMA, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"The decisions in {part} can't be read ({error}); bring the file back from a copy, or move it away to "
                "go on without them."
            ) from error
        columns = [table[name].to_pylist() for name in SCHEMA.names]
        columns[2] = [_WHATS.get(what, what) for what in columns[2]]
        rows += map(Decision._make, zip(*columns, strict=True))
    return Decisions([row for row in rows if row.what in SUBJECTS])


_WHATS = {str(what): what for what in What}


def decision_parts(collection: Path) -> list[Path]:
    """Returns the files of a collection's decisions, in order."""
    return sorted((collection / FOLDER).glob("[!.]*.parquet"))


def images_folder(collection: Path) -> Path:
    """Returns the folder of the images that took the place of others."""
    return collection / FOLDER / "images"


def decision_rows(decisions: Sequence[Decision]) -> pa.Table:
    """Returns decisions as rows of the table."""
    columns = zip(*decisions, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def next_time(decisions: Iterable[Decisions]) -> str:
    """Returns the time of a new command: now, or just after the newest decision where the clock was set back."""
    times = [row.time for of_collection in decisions for row in of_collection.rows[-1:]]
    now = datetime.now(UTC)
    if times:
        now = max(now, datetime.fromisoformat(max(times)) + timedelta(microseconds=1))
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
