"""The rules that drop images that repeat an earlier one, in the same bytes or in others."""

from collections.abc import Mapping, Sequence
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import NONE, Rows, exact_duplicates, near_duplicates
from dreamloom.curate.rules.rule import Images, Rule
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import Choice, Table


def _find_duplicates(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    repeats = exact_duplicates(images.table["sha256"].take(rows).to_pylist())
    return _details(images, rows, repeats)


def _find_near_duplicates(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    hashed = rows[images.table["phash"].is_valid().to_numpy()[rows]]
    if config.near_duplicate_bits is None or not len(hashed):
        return {}
    _check_one_model(images.sources)
    repeats = near_duplicates(
        images.table["phash"].take(hashed).to_numpy(),
        config.near_duplicate_bits,
        config.near_duplicate_cosine,
        lambda which: images.embeddings(hashed[which]),
    )
    return _details(images, hashed, repeats)


def _details(images: Images, rows: Rows, repeats: Rows) -> dict[int, str]:
    copies = repeats != NONE
    originals = images.names(rows[repeats[copies]])
    return {row: f"repeats {name}" for row, name in zip(rows[copies].tolist(), originals, strict=True)}


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
            "score both with one model, or set near_duplicate_bits to null."
        )


def _explain_duplicates(config: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return "no earlier image has the same bytes"


def _explain_near_duplicates(config: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    if row.get("phash") is None:
        return None
    bits, cosine = config["near_duplicate_bits"], config["near_duplicate_cosine"]
    return f"no earlier image looks the same: pHash ≤ {bits} bits apart with CLIP cosine ≥ {cosine:g}"


DUPLICATE = Rule(Choice.DUPLICATE, _find_duplicates, _explain_duplicates, columns=("sha256",))
NEAR_DUPLICATE = Rule(
    Choice.NEAR_DUPLICATE, _find_near_duplicates, _explain_near_duplicates, field="near_duplicate_bits"
)
