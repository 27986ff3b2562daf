"""Applies the rules of choose to images, and names for each that breaks one the rule."""

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.errors import UserError
from dreamloom.base.stage import Summary
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules import RULES
from dreamloom.curate.rules.decided import decided_columns
from dreamloom.curate.rules.dedupe import NONE
from dreamloom.curate.rules.rule import Images, Part
from dreamloom.curate.scores import SCORES
from dreamloom.curate.scores.embedding import EMBEDDING
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table
from dreamloom.scrape.collection.decisions import Decision, What

VERSION = 4
"""Raised when the rules choose otherwise of the same images."""
PartName = tuple[int, str]
"""A source's number, and the name of a part."""
MakePart = Callable[[], tuple[pa.Table, Summary]]
"""Makes the choices of a part, and their summary."""


def decide(images: Images, config: ChooseConfig) -> dict[PartName, MakePart]:
    """Applies the rules in their order: each sees what those before it kept."""
    roles = np.array([source.role is not Role.TRAINING for source in images.sources])
    is_ground_truth = roles[images.table["source"].to_numpy()]
    broken = np.full(len(images.table), NONE, dtype=np.int8)
    details: dict[int, str] = {}
    is_kept = images.is_kept
    for number, rule in enumerate(RULES):
        if rule.is_on(config.model_dump()):
            rows = np.flatnonzero((broken == NONE) & (is_ground_truth | (not rule.ground_truth_only)))
            found = {row: why for row, why in rule.find(images, rows, config).items() if not is_kept[row]}
            broken[list(found)] = number
            details |= found
    choices = _Choices(images, broken, details)
    return {(part.source, part.name): partial(choices.of_part, part) for part in images.parts}


@dataclass(frozen=True)
class _Choices:
    """The rule that each image breaks."""

    images: Images
    broken: NDArray[np.int8]
    """The rule's place in `RULES`, or NONE: it is kept."""
    details: Mapping[int, str]
    """Row → what broke the rule."""

    def of_part(self, part: Part) -> tuple[pa.Table, Summary]:
        rows = range(part.first, part.first + part.rows)
        broken = self.broken[part.first : part.first + part.rows].tolist()
        choices = [str(Choice.KEPT) if rule == NONE else str(RULES[rule].name) for rule in broken]
        keys = self.images.table["key"].slice(part.first, part.rows)
        return choices_table(keys, choices, [self.details.get(row) for row in rows])


def choices_table(
    keys: pa.ChunkedArray, choices: Sequence[str], details: Sequence[str | None]
) -> tuple[pa.Table, Summary]:
    """Returns the choices of a part, and their summary."""
    counts = Counter(choices)
    summary = Summary(rows=len(keys), kept=counts.pop(Choice.KEPT, 0), dropped=dict(sorted(counts.items())))
    columns = {"choice": pa.array(choices, pa.string()), "detail": pa.array(details, pa.string())}
    return pa.table({"key": keys, **columns}), summary


def read_images(ordered: Sequence[Source], wanted: Container[PartName] | None = None) -> Images:
    """Reads what rules look at of each image that can be chosen.

    Args:
        ordered: the sources.
        wanted: only images of these parts; None: of all.
    """
    tables, parts, first = list[pa.Table](), list[Part](), 0
    for number, source in enumerate(ordered):
        decisions = source.collection.decisions().standing(What.KEEP, What.DROP)
        scored = set(source.collection.parts(Table.SCORES))
        for name in source.collection.parts(Table.RECORDS):
            if wanted is None or (number, name) in wanted:
                rows = _read_part(source.collection, name, scored, decisions)
                tables.append(rows.append_column("source", pa.array(np.full(len(rows), number, dtype=np.int64))))
                parts.append(Part(number, name, first, len(rows)))
                first += len(rows)
    return Images(pa.concat_tables(tables), ordered, parts)


def _read_part(collection: Collection, part: str, scored: set[str], decisions: Mapping[str, Decision]) -> pa.Table:
    import pyarrow.compute as pc

    columns = list(dict.fromkeys(("key", "status", *(name for rule in RULES for name in rule.columns))))
    if scored and part not in scored:
        raise _outdated_scores(collection.name)
    rows = collection.read(Table.RECORDS, part, columns)
    rows = rows.filter(pc.equal(rows["status"], Status.OK)).drop_columns("status")
    rows = _with_scores(rows, collection, part, bool(scored))
    for name, values in decided_columns(rows["key"], decisions).items():
        rows = rows.append_column(name, values)
    large = [f.with_type(pa.large_string()) if f.type == pa.string() else f for f in rows.schema]
    return rows.cast(pa.schema(large))


def _with_scores(rows: pa.Table, collection: Collection, part: str, scored: bool) -> pa.Table:
    """Adds the scores of a part's rows, without the rows that have none; where nothing was scored, all are null."""
    import pyarrow.compute as pc

    names = [score.name for score in SCORES if score is not EMBEDDING]
    scores = SCHEMAS[Table.SCORES].empty_table()
    if scored:
        scores = collection.read(Table.SCORES, part, ["key", *names])
        if len(rows) != collection.summary(Table.SCORES, part).rows:
            raise _outdated_scores(collection.name)
    at = pc.index_in(rows["key"], scores["key"].combine_chunks())
    if pc.count(at).as_py() != len(scores):
        raise _outdated_scores(collection.name)
    for name in names:
        rows = rows.append_column(name, scores[name].combine_chunks().take(at))
    return rows.filter(pc.is_valid(at)) if scored else rows


def _outdated_scores(name: str) -> UserError:
    return UserError(f"The scores of {name} are not those of its records; run score again.")
