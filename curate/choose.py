"""The choose stage: decides which images go on, and names for each other image the rule that it breaks.

The user's own images are taken as they are: thresholds and licences apply to ground truth. Duplicates are dropped from
both, and training images come before ground truth, so that no image is both taught and held up as known before.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules import RULES
from dreamloom.curate.rules.decided import decided_columns
from dreamloom.curate.rules.dedupe import NONE
from dreamloom.curate.rules.rule import Images, Part
from dreamloom.curate.scores import SCORES
from dreamloom.curate.scores.embedding import EMBEDDING
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table, open_collection
from dreamloom.scrape.collection.decisions import What, digest
from dreamloom.scrape.collection.parts import make_parts, stale_parts

VERSION = 3


def choose(sources: Sequence[Source], config: ChooseConfig, progress: Progress = silent) -> Summary:
    """Writes the choices of every source: one row per score, or per record where nothing was scored.

    Applies the rules in the order of `RULES`. Of duplicates one stays: of training before ground truth, then as
    dreamloom.curate.rules.priority has it. An image without the value that a threshold asks for (such as text to be
    similar to) passes. What a decision keeps, no rule drops.

    Raises:
        UserError: a threshold needs scores that are missing, or sources were scored by different models.
    """
    ordered = sort_by_priority(sources)
    recipes = _recipes(ordered, config)
    for source in ordered:
        _check_scores(source, config_for(source.role, config))
    current = not any(stale_parts(s.collection, Table.CHOICES, recipes[s.name]) for s in ordered)
    choices = {} if current else _choose(ordered, config).by_part()

    total = Summary()
    for number, source in enumerate(ordered):

        def write_part(part: str, progress: Progress, number: int = number) -> tuple[pa.Table, Summary]:
            return choices[number, part]()

        source_config = config_for(source.role, config)
        total += make_parts(source.collection, Table.CHOICES, source_config, recipes[source.name], write_part)
        progress(number + 1, len(ordered), f"{total.kept} kept")
    return total


def is_current(sources: Sequence[Source], config: ChooseConfig) -> bool:
    """Whether the choices of all sources exist, made by this config from the present records and scores."""
    ordered = sort_by_priority(sources)
    recipes = _recipes(ordered, config)
    return not any(stale_parts(s.collection, Table.CHOICES, recipes[s.name]) for s in ordered)


def sort_by_priority(sources: Sequence[Source]) -> list[Source]:
    """Returns training sources first, then ground truth, each in the given order.

    Raises:
        UserError: there is none, two have the same name, or one has no records.
    """
    if not sources:
        raise UserError("There is no collection to choose from; name one that is to be learned.")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two sources are called {name}; give each collection a name of its own.")
    for source in sources:
        open_collection(source.collection, needs=Table.RECORDS)
    return sorted(sources, key=lambda source: list(Role).index(source.role))


def config_for(role: Role, config: ChooseConfig) -> ChooseConfig:
    """Returns the config that applies to sources of a role: for training, rules for ground truth are off."""
    if role is not Role.TRAINING:
        return config
    return config.model_copy(update={r.field: r.off for r in RULES if r.field is not None and r.ground_truth_only})


def _recipes(ordered: Sequence[Source], config: ChooseConfig) -> dict[str, dict[str, str]]:
    """Source → part → recipe. A source depends on all of its role, and on those whose role comes before it."""
    recipes: dict[str, dict[str, str]] = {}
    upstream: list[str] = []
    for role in Role:
        of_role = [source for source in ordered if source.role is role]
        for source in of_role:
            stamps = source.collection.stamps(Table.RECORDS) + source.collection.stamps(Table.SCORES)
            decided = digest(source.collection.decisions().standing(What.KEEP, What.DROP).values())
            upstream += [source.name, source.role, *stamps, *filter(None, [decided])]
        made = recipe("choose", VERSION, config_for(role, config), upstream)
        recipes |= {s.name: dict.fromkeys(s.collection.parts(Table.RECORDS), made) for s in of_role}
    return recipes


def _check_scores(source: Source, config: ChooseConfig) -> None:
    """Raises UserError where a rule needs a score that the source doesn't have."""
    rules = [rule for rule in RULES if rule.is_on(config.model_dump())]
    scored = source.collection.parts(Table.SCORES)
    for rule in rules:
        if rule.score is not None and not scored:
            raise UserError(
                f"{rule.field} needs scores, and {source.name} has none; run score, or leave {rule.field} out."
            )
    for rule in rules:
        for model in (score.model for score in SCORES if score.name == rule.score):
            if model is not None and model.role not in source.collection.models(Table.SCORES, scored[0]):
                raise UserError(
                    f"{rule.field} needs {rule.score} scores, and {source.name} was scored without a {model.role}; "
                    f"set score.{model.field}, or leave {rule.field} out."
                )


@dataclass(frozen=True)
class _Choices:
    """The rule that each image breaks."""

    images: Images
    broken: NDArray[np.int8]
    """The rule's place in `RULES`, or NONE: it is kept."""
    details: Mapping[int, str]
    """Row → what broke the rule."""

    def by_part(self) -> dict[tuple[int, str], Callable[[], tuple[pa.Table, Summary]]]:
        """Source's number and part → what makes its rows of the choices table, and their summary."""
        return {(part.source, part.name): partial(self._of_part, part) for part in self.images.parts}

    def _of_part(self, part: Part) -> tuple[pa.Table, Summary]:
        rows = range(part.first, part.first + part.rows)
        broken = self.broken[part.first : part.first + part.rows].tolist()
        choices = [str(Choice.KEPT) if rule == NONE else str(RULES[rule].name) for rule in broken]
        details = pa.array([self.details.get(row) for row in rows], pa.string())
        keys = self.images.table["key"].slice(part.first, part.rows)
        counts = Counter(choices)
        summary = Summary(rows=part.rows, kept=counts.pop(Choice.KEPT, 0), dropped=dict(sorted(counts.items())))
        return pa.table({"key": keys, "choice": pa.array(choices, pa.string()), "detail": details}), summary


def _choose(ordered: Sequence[Source], config: ChooseConfig) -> _Choices:
    images = read_images(ordered)
    is_ground_truth = np.array([s.role is not Role.TRAINING for s in ordered])[images.table["source"].to_numpy()]
    broken = np.full(len(images.table), NONE, dtype=np.int8)
    details: dict[int, str] = {}
    is_kept = images.is_kept
    for number, rule in enumerate(RULES):
        if rule.is_on(config.model_dump()):
            rows = np.flatnonzero((broken == NONE) & (is_ground_truth | (not rule.ground_truth_only)))
            found = {row: why for row, why in rule.find(images, rows, config).items() if not is_kept[row]}
            broken[list(found)] = number
            details |= found
    return _Choices(images, broken, details)


def read_images(ordered: Sequence[Source]) -> Images:
    """Reads what rules look at of each image that can be chosen."""
    tables, parts, first = [], list[Part](), 0
    for number, source in enumerate(ordered):
        for name, rows in _read_parts(source):
            tables.append(rows.append_column("source", pa.array(np.full(len(rows), number, dtype=np.int64))))
            parts.append(Part(number, name, first, len(rows)))
            first += len(rows)
    return Images(pa.concat_tables(tables), ordered, parts)


def _read_parts(source: Source) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow.compute as pc

    collection = source.collection
    columns = list(dict.fromkeys(("key", "status", *(name for rule in RULES for name in rule.columns))))
    scored = set(collection.parts(Table.SCORES))
    decisions = collection.decisions().standing(What.KEEP, What.DROP)
    for part in collection.parts(Table.RECORDS):
        if scored and part not in scored:
            raise _outdated_scores(collection.name)
        rows = collection.read(Table.RECORDS, part, columns)
        rows = rows.filter(pc.equal(rows["status"], Status.OK)).drop_columns("status")
        rows = _with_scores(rows, collection, part, bool(scored))
        for name, values in decided_columns(rows["key"], decisions).items():
            rows = rows.append_column(name, values)
        large = [f.with_type(pa.large_string()) if f.type == pa.string() else f for f in rows.schema]
        yield part, rows.cast(pa.schema(large))


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
