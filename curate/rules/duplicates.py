"""The rules that drop images that repeat an earlier one, in the same bytes or in others."""

from collections.abc import Mapping, Sequence
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.curate.config import ChooseConfig, NearDuplicates
from dreamloom.curate.rules import priority
from dreamloom.curate.rules.crops import PartFinder
from dreamloom.curate.rules.dedupe import NONE, Likeness, Rows, exact_duplicates, near_duplicates
from dreamloom.curate.rules.rule import Images, Rule
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import Choice, Table

BITS = {NearDuplicates.STRICT: 4, NearDuplicates.SIMILAR: 10}
"""Maximum pHash bits in which near duplicates differ. `similar` also takes those of which one shows a part of the other
(dreamloom.curate.rules.crops). bench/duplicates.py measures what either finds."""


def likeness(config: ChooseConfig) -> Likeness:
    """Returns when two images count as near duplicates."""
    kind = config.near_duplicates
    return Likeness(BITS[kind], config.near_duplicate_cosine, mirrored=kind is NearDuplicates.SIMILAR)


def _find_duplicates(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    ranked = images.best_first(rows)
    return _details(images, ranked, exact_duplicates(images.table["sha256"].take(ranked)))


def _find_near_duplicates(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    hashed = images.best_first(rows[images.table["phash"].is_valid().to_numpy()[rows]])
    if not len(hashed):
        return {}
    _check_one_model(images.sources)
    hashes = images.table["phash"].take(hashed).to_numpy()
    is_similar = config.near_duplicates is NearDuplicates.SIMILAR
    confirm = PartFinder(lambda row: images.image(hashed[row])) if is_similar else None
    repeats = near_duplicates(hashes, likeness(config), lambda which: images.embeddings(hashed[which]), confirm=confirm)
    return _details(images, hashed, repeats)


def _details(images: Images, rows: Rows, repeats: Rows) -> dict[int, str]:
    """Returns the copies with what they repeat; images of one download are not copies, but one image's captions."""
    copies = repeats != NONE
    table = images.table.select(["source", "key", "url", "decided", *priority.COLUMNS])
    found = {}
    for row, stayed, dropped in zip(
        rows[copies].tolist(),
        table.take(rows[repeats[copies]]).to_pylist(),
        table.take(rows[copies]).to_pylist(),
        strict=True,
    ):
        if stayed["url"] is not None and (stayed["source"], stayed["url"]) == (dropped["source"], dropped["url"]):
            continue
        why = priority.explain(stayed, dropped, images.sources)
        found[row] = f"repeats {images.sources[stayed['source']].name}/{stayed['key']}, {why}"
    return found


def _check_one_model(sources: Sequence[Source]) -> None:
    scored_by = {}
    for source in sources:
        for part in source.collection.parts(Table.SCORES):
            models = source.collection.models(Table.SCORES, part)  # by content, not by path
            scored_by[models.get("clip"), models.get("weights")] = source.name
    if len(scored_by) > 1:
        first, second, *_ = scored_by.values()
        raise UserError(
            f"{first} and {second} were scored by different CLIP models, so near duplicates can't be found; "
            "score both with one model, or set near_duplicates to off."
        )


def _explain_duplicates(config: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"no better image has the same bytes ({priority.RULE})"


def _explain_near_duplicates(config: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    if row.get("phash") is None:
        return None
    kind, cosine = NearDuplicates(config["near_duplicates"]), config["near_duplicate_cosine"]
    looks_same = f"no better image looks the same: pHash ≤ {BITS[kind]} bits apart"
    if kind is NearDuplicates.SIMILAR:
        looks_same += ", also mirrored, or one a part of the other,"
    return f"{looks_same} with CLIP cosine ≥ {cosine:g}"


DUPLICATE = Rule(Choice.DUPLICATE, _find_duplicates, _explain_duplicates, columns=("sha256", "url", *priority.COLUMNS))
NEAR_DUPLICATE = Rule(
    Choice.NEAR_DUPLICATE,
    _find_near_duplicates,
    _explain_near_duplicates,
    field="near_duplicates",
    off=NearDuplicates.OFF,
    columns=("url", "image", *priority.COLUMNS),
)
