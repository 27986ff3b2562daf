"""The choose stage: decides which images go on, and names for each other image the rule that it breaks.

The user's own images are taken as they are: thresholds and licences apply to ground truth. Duplicates are dropped from
both, and training images come before ground truth, so that no image is both taught and held up as known before.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules import RULES
from dreamloom.curate.rules.rule import Images
from dreamloom.curate.scores import SCORES
from dreamloom.curate.scores.embedding import EMBEDDING
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table, open_collection
from dreamloom.scrape.collection.parts import make_parts, stale_parts

VERSION = 2


def choose(sources: Sequence[Source], config: ChooseConfig, progress: Progress = silent) -> Summary:
    """Writes the choices of every source: one row per score, or per record where nothing was scored.

    Applies the rules in the order of `RULES`. Of duplicates the first stays: training before ground truth, then in the
    order of `sources`, then of keys. An image without the value that a threshold asks for (such as text to be similar
    to) passes.

    Raises:
        UserError: a threshold needs scores that are missing, or sources were scored by different models.
    """
    ordered = sort_by_priority(sources)
    recipes = _recipes(ordered, config)
    for source in ordered:
        _check_scores(source, config_for(source.role, config))

    @cache
    def choices() -> list[pa.Table]:
        return _choose(ordered, config)

    total = Summary()
    for number, source in enumerate(ordered):

        def write_part(part: str, progress: Progress, number: int = number) -> tuple[pa.Table, Summary]:
            rows = choices()[number].filter(pc.equal(choices()[number]["part"], part))
            return _part_choices(ordered[number], part, rows)

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
        open_collection(source.collection.root, needs=Table.RECORDS)
    return sorted(sources, key=lambda source: list(Role).index(source.role))


def config_for(role: Role, config: ChooseConfig) -> ChooseConfig:
    """Returns the config that applies to sources of a role: for training, rules for ground truth are off."""
    if role is not Role.TRAINING:
        return config
    return config.model_copy(update={r.field: r.off for r in RULES if r.field is not None and r.ground_truth_only})


def _recipes(ordered: Sequence[Source], config: ChooseConfig) -> dict[str, dict[str, str]]:
    """Source → part → recipe. A source's result depends on earlier sources only, so appending one invalidates none."""
    recipes, upstream = {}, list[str]()
    for source in ordered:
        stamps = source.collection.stamps(Table.RECORDS) + source.collection.stamps(Table.SCORES)
        upstream += [source.name, source.role, *stamps]
        source_recipe = recipe("choose", VERSION, config_for(source.role, config), upstream)
        recipes[source.name] = dict.fromkeys(source.collection.parts(Table.RECORDS), source_recipe)
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


def _choose(ordered: Sequence[Source], config: ChooseConfig) -> list[pa.Table]:
    """Returns for each source: part, key, choice and detail of each image."""
    images = Images(pa.concat_tables([_read_images(source, number) for number, source in enumerate(ordered)]), ordered)
    is_ground_truth = np.array([s.role is not Role.TRAINING for s in ordered])[images.table["source"].to_numpy()]
    choices = np.full(len(images.table), Choice.KEPT.value, dtype=object)
    details: list[str | None] = [None] * len(images.table)
    for rule in (rule for rule in RULES if rule.is_on(config.model_dump())):
        rows = np.flatnonzero((choices == Choice.KEPT.value) & (is_ground_truth | (not rule.ground_truth_only)))
        for row, detail in rule.find(images, rows, config).items():
            choices[row], details[row] = str(rule.name), detail
    table = images.table.select(["source", "part", "key"])
    table = table.append_column("choice", pa.array(choices, pa.string()))
    table = table.append_column("detail", pa.array(details, pa.string()))
    return [table.filter(pc.equal(table["source"], number)) for number in range(len(ordered))]


def _read_images(source: Source, number: int) -> pa.Table:
    """Returns a row per image of a source that can be chosen, in the order of keys; see `Images.table`."""
    collection, scored = source.collection, bool(source.collection.parts(Table.SCORES))
    columns = dict.fromkeys(("key", "status", *(name for rule in RULES for name in rule.columns)))
    parts, count = [], 0
    for part in collection.parts(Table.RECORDS):
        rows = collection.read(Table.RECORDS, part, list(columns))
        rows = rows.filter(pc.equal(rows["status"], Status.OK))
        count += len(rows)
        rows = rows.append_column("part", pa.array([part] * len(rows), pa.string()))
        parts.append(_with_scores(rows, collection, part, scored))
    if scored and count != collection.summary(Table.SCORES).rows:
        raise _outdated_scores(source.name)
    table = pa.concat_tables(parts).sort_by("key")
    return table.append_column("source", pa.array(np.full(len(table), number, dtype=np.int64)))


def _with_scores(rows: pa.Table, collection: Collection, part: str, scored: bool) -> pa.Table:
    """Adds the scores of a part's rows, without the rows that have none; where nothing was scored, all are null."""
    names = [score.name for score in SCORES if score is not EMBEDDING]
    if scored and part not in collection.parts(Table.SCORES):
        raise _outdated_scores(collection.name)
    scores = SCHEMAS[Table.SCORES].empty_table()
    if scored:
        scores = collection.read(Table.SCORES, part, ["key", *names])
    at = pc.index_in(rows["key"], scores["key"].combine_chunks())
    if pc.count(at).as_py() != len(scores):
        raise _outdated_scores(collection.name)
    for name in names:
        rows = rows.append_column(name, scores[name].combine_chunks().take(at))
    return rows.filter(pc.is_valid(at)) if scored else rows


def _outdated_scores(name: str) -> UserError:
    return UserError(f"The scores of {name} are not those of its records; run score again.")


def _part_choices(source: Source, part: str, choices: pa.Table) -> tuple[pa.Table, Summary]:
    """Returns the choices of one part, in the order of its records."""
    keys = source.collection.read(Table.RECORDS, part, ["key"])["key"]
    at = pc.index_in(keys, choices["key"].combine_chunks()).drop_null()
    rows = choices.take(at).select(["key", "choice", "detail"])
    summary = Summary(rows=len(rows))
    for choice, count in zip(*np.unique(rows["choice"].to_pylist(), return_counts=True), strict=True):
        if choice == Choice.KEPT:
            summary.kept = int(count)
        else:
            summary.dropped[str(choice)] = int(count)
    return rows, summary
