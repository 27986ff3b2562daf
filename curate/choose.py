"""Choices: which images go on, and for each that does not, the rule it broke.

What the user wants to teach is taken as it is: thresholds and licences are for ground truth. Copies go from both, and
training images stand before ground truth, so that nothing taught is also held up as what the model knew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.dedupe import NONE, Rows, exact_duplicates, near_duplicates
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table, open_collection
from dreamloom.scrape.collection.parts import make_parts, stale_parts

VERSION = 1
UNKNOWN = "unknown"


def choose(sources: Sequence[Source], config: ChooseConfig, progress: Progress = silent) -> Summary:
    """Writes the choices of every source: one row a score, or a record where nothing was scored.

    Rules in order: licence, aesthetic, similarity; of those that pass, copies, the first of which stays: training
    before ground truth, then in the order of `sources`, then of keys. An image that lacks what a threshold asks for
    (no text to be similar to) passes.

    Raises:
        UserError: a threshold asks for scores that are not there, or sources were scored by different models.
    """
    ordered = in_order(sources)
    recipes = _recipes(ordered, config)
    for source in ordered:
        _check_scores(source, rules_for(source.role, config))

    @cache
    def chosen() -> list[pa.Table]:
        return _choose(ordered, config)

    total = Summary()
    for number, source in enumerate(ordered):

        def work(part: str, progress: Progress, number: int = number) -> tuple[pa.Table, Summary]:
            rows = chosen()[number].filter(pc.equal(chosen()[number]["part"], part))
            return _in_part(ordered[number], part, rows)

        rules = rules_for(source.role, config)
        total += make_parts(source.collection, Table.CHOICES, rules, recipes[source.name], work)
        progress(number + 1, len(ordered), f"{total.kept} kept")
    return total


def rules_for(role: Role, config: ChooseConfig) -> ChooseConfig:
    """Returns the rules that apply to sources of a role: thresholds and licences are for ground truth only."""
    if role is Role.GROUND_TRUTH:
        return config
    return config.model_copy(update={"min_aesthetic": None, "min_similarity": None, "exclude_licences": []})


def is_current(sources: Sequence[Source], config: ChooseConfig) -> bool:
    """Whether every source's choices are there, made by this config from what is there now."""
    ordered = in_order(sources)
    recipes = _recipes(ordered, config)
    return not any(stale_parts(s.collection, Table.CHOICES, recipes[s.name]) for s in ordered)


def in_order(sources: Sequence[Source]) -> list[Source]:
    """Training first, then ground truth, each in the order in which they are given.

    Raises:
        UserError: two have one name, or one has no records.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two sources are called {name}; give each collection a name of its own.")
    for source in sources:
        open_collection(source.collection.root, needs=Table.RECORDS)
    return sorted(sources, key=lambda source: list(Role).index(source.role))


def _recipes(ordered: Sequence[Source], config: ChooseConfig) -> dict[str, dict[str, str]]:
    """Source → part → recipe. A source's choices hang on those before it only, so one added last changes no other."""
    recipes, upstream = {}, list[str]()
    for source in ordered:
        stamps = source.collection.stamps(Table.RECORDS) + source.collection.stamps(Table.SCORES)
        upstream += [source.name, source.role, *stamps]
        one = recipe("choose", VERSION, rules_for(source.role, config), upstream)
        recipes[source.name] = dict.fromkeys(source.collection.parts(Table.RECORDS), one)
    return recipes


def _check_scores(source: Source, rules: ChooseConfig) -> None:
    """Raises UserError where a rule needs scores that the source does not have."""
    scored = source.collection.parts(Table.SCORES)
    for name in ("min_aesthetic", "min_similarity"):
        if not scored and getattr(rules, name) is not None:
            raise UserError(f"{name} needs scores, and {source.name} has none; run score, or leave {name} out.")
    if rules.min_aesthetic is not None and "head" not in source.collection.models(Table.SCORES, scored[0]):
        raise UserError(
            f"min_aesthetic needs aesthetic scores, and {source.name} was scored without a head; "
            "give score a head, or leave min_aesthetic out."
        )


@dataclass
class _Verdicts:
    """What became of each row so far; all rows begin as kept."""

    choice: list[str]
    detail: list[str | None] = field(default_factory=list)

    def drop(self, rows: Rows, choice: Choice, details: Sequence[str]) -> None:
        for row, detail in zip(rows.tolist(), details, strict=True):
            self.choice[row], self.detail[row] = choice, detail

    def kept(self) -> NDArray[np.bool_]:
        return np.array([choice == Choice.KEPT for choice in self.choice], dtype=bool)


def _choose(ordered: Sequence[Source], config: ChooseConfig) -> list[pa.Table]:
    """For each source: part, key, choice, detail of each image."""
    tables = [_pictures(source, number) for number, source in enumerate(ordered)]
    pictures = pa.concat_tables(tables)
    verdicts = _Verdicts([Choice.KEPT] * len(pictures), [None] * len(pictures))
    ground_truth = np.array([s.role is Role.GROUND_TRUTH for s in ordered])[pictures["source"].to_numpy()]
    _by_licence(pictures, ground_truth, config, verdicts)
    _by_threshold(pictures, ground_truth, "aesthetic", config.min_aesthetic, Choice.LOW_AESTHETIC, verdicts)
    _by_threshold(pictures, ground_truth, "similarity", config.min_similarity, Choice.LOW_SIMILARITY, verdicts)
    _by_bytes(pictures, ordered, verdicts)
    _by_looks(pictures, ordered, config, verdicts)
    judged = pictures.select(["source", "part", "key"])
    judged = judged.append_column("choice", pa.array(verdicts.choice, pa.string()))
    judged = judged.append_column("detail", pa.array(verdicts.detail, pa.string()))
    return [judged.filter(pc.equal(judged["source"], number)) for number in range(len(ordered))]


def _pictures(source: Source, number: int) -> pa.Table:
    """One row an image of a source that can be chosen, in the order of keys."""
    collection, scored = source.collection, bool(source.collection.parts(Table.SCORES))
    parts, pictures = [], 0
    for part in collection.parts(Table.RECORDS):
        rows = collection.read(Table.RECORDS, part, ["key", "status", "sha256", "licence", "licence_url"])
        rows = rows.filter(pc.equal(rows["status"], Status.OK))
        pictures += len(rows)
        rows = rows.append_column("part", pa.array([part] * len(rows), pa.string()))
        parts.append(_with_scores(rows, collection, part, scored))
    if scored and pictures != collection.summary(Table.SCORES).rows:
        raise _old_scores(source.name)
    table = pa.concat_tables(parts).sort_by("key")
    return table.append_column("source", pa.array(np.full(len(table), number, dtype=np.int64)))


def _with_scores(rows: pa.Table, collection: Collection, part: str, scored: bool) -> pa.Table:
    """The rows of a part and their scores: only those that have some, or all, with nulls, where nothing was scored."""
    columns = ["key", "aesthetic", "similarity", "phash"]
    if scored and part not in collection.parts(Table.SCORES):
        raise _old_scores(collection.name)
    scores = collection.read(Table.SCORES, part, columns) if scored else SCHEMAS[Table.SCORES].empty_table()
    at = pc.index_in(rows["key"], scores["key"].combine_chunks())
    if pc.count(at).as_py() != len(scores):
        raise _old_scores(collection.name)
    for name in columns[1:]:
        rows = rows.append_column(name, scores[name].combine_chunks().take(at))
    return rows.filter(pc.is_valid(at)) if scored else rows


def _old_scores(name: str) -> UserError:
    return UserError(f"The scores of {name} are not those of its records; run score again.")


def _by_licence(pictures: pa.Table, ground_truth: NDArray[np.bool_], config: ChooseConfig, verdicts: _Verdicts) -> None:
    words = [word.strip().casefold() for word in config.exclude_licences]
    if not words:
        return

    @cache  # there are few licences and many images
    def excluded(licence: str | None, address: str | None) -> bool:
        text = f"{licence or ''} {address or ''}".casefold()
        nameless = not text.strip(" ?")  # LAION has "?" for a licence it does not know
        return any(nameless if word == UNKNOWN else word in text for word in words)

    licences = list(zip(pictures["licence"].to_pylist(), pictures["licence_url"].to_pylist(), strict=True))
    rows = np.array([row for row in np.flatnonzero(ground_truth).tolist() if excluded(*licences[row])], dtype=np.int64)
    verdicts.drop(rows, Choice.LICENCE, [licences[row][0] or licences[row][1] or UNKNOWN for row in rows])


def _by_threshold(
    pictures: pa.Table,
    ground_truth: NDArray[np.bool_],
    column: str,
    least: float | None,
    choice: Choice,
    verdicts: _Verdicts,
) -> None:
    if least is None:
        return
    values = pictures[column].to_numpy()  # null becomes NaN, which is never less
    low = np.flatnonzero(ground_truth & verdicts.kept() & (values < least))
    verdicts.drop(low, choice, [f"{column} {values[row]:.3f} < {least:g}" for row in low])


def _by_bytes(pictures: pa.Table, ordered: Sequence[Source], verdicts: _Verdicts) -> None:
    rows = np.flatnonzero(verdicts.kept())
    repeats = exact_duplicates(pictures["sha256"].take(rows).to_pylist())
    _drop_copies(pictures, ordered, rows, repeats, Choice.DUPLICATE, verdicts)


def _by_looks(pictures: pa.Table, ordered: Sequence[Source], config: ChooseConfig, verdicts: _Verdicts) -> None:
    if config.near_duplicate_bits is None:
        return
    rows = np.flatnonzero(verdicts.kept() & pictures["phash"].is_valid().to_numpy())
    if not len(rows):
        return
    _check_one_model(ordered)
    repeats = near_duplicates(
        pictures["phash"].take(rows).to_numpy(),
        config.near_duplicate_bits,
        config.near_duplicate_cosine,
        lambda which: _embeddings(pictures, ordered, rows[which]),
    )
    _drop_copies(pictures, ordered, rows, repeats, Choice.NEAR_DUPLICATE, verdicts)


def _drop_copies(
    pictures: pa.Table, ordered: Sequence[Source], rows: Rows, repeats: Rows, choice: Choice, verdicts: _Verdicts
) -> None:
    copies = repeats != NONE
    first = pictures.take(rows[repeats[copies]]).select(["source", "key"]).to_pylist()
    verdicts.drop(rows[copies], choice, [f"repeats {ordered[r['source']].name}/{r['key']}" for r in first])


def _check_one_model(ordered: Sequence[Source]) -> None:
    models = {}
    for source in ordered:
        for part in source.collection.parts(Table.SCORES):
            made = source.collection.models(Table.SCORES, part)  # wherever they lay
            models[made.get("clip"), made.get("weights")] = source.name
    if len(models) > 1:
        one, other, *_ = models.values()
        raise UserError(
            f"{one} and {other} were scored by different CLIP models, so copies can't be found; "
            "score both by one, or set near_duplicate_bits to null."
        )


def _embeddings(pictures: pa.Table, ordered: Sequence[Source], rows: Rows) -> NDArray[np.float32]:
    """The embeddings [m, d] of m rows, read from the parts that hold them."""
    wanted = pictures.select(["source", "part", "key"]).take(rows)
    found: NDArray[np.float32] | None = None
    for place in wanted.group_by(["source", "part"]).aggregate([]).to_pylist():
        here = pc.and_(pc.equal(wanted["source"], place["source"]), pc.equal(wanted["part"], place["part"]))
        at = np.flatnonzero(here.to_numpy())
        scores = ordered[place["source"]].collection.read(Table.SCORES, place["part"], ["key", "embedding"])
        which = pc.index_in(wanted["key"].take(at), scores["key"].combine_chunks())
        taken = scores["embedding"].combine_chunks().take(which.combine_chunks())
        vectors = taken.flatten().to_numpy(zero_copy_only=False).reshape(len(at), -1).astype(np.float32)
        if found is None:
            found = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
        found[at] = vectors
    assert found is not None
    return found


def _in_part(source: Source, part: str, chosen: pa.Table) -> tuple[pa.Table, Summary]:
    """The choices of one part, in the order of its records."""
    keys = source.collection.read(Table.RECORDS, part, ["key"])["key"]
    at = pc.index_in(keys, chosen["key"].combine_chunks()).drop_null()
    rows = chosen.take(at).select(["key", "choice", "detail"])
    summary = Summary(rows=len(rows))
    for choice, count in zip(*np.unique(rows["choice"].to_pylist(), return_counts=True), strict=True):
        if choice == Choice.KEPT:
            summary.kept = int(count)
        else:
            summary.dropped[str(choice)] = int(count)
    return rows, summary
