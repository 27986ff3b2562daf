"""The caption stage: an image keeps the text it came with where its kind is kept; models caption the others.

A caption that was decided (dreamloom.scrape.collection.decisions) counts before both, and is not edited.

What a model said of an image is reused, from any part of this collection or of those beside it, or from one that a
killed run left unfinished, if the image and everything that the words depend on are the same. So another threshold in
choose, other edits or another file name ask no model again. Threads decode and scale images ahead of the model, so that
it never waits.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.files.remembered import remembered
from dreamloom.base.models.clip_config import clip_name
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe, recipe_values
from dreamloom.caption.candidates import find_candidates
from dreamloom.caption.check import check
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.ranking import DOUBTFUL, is_doubtful, select_best
from dreamloom.caption.reuse import CANDIDATES_VERSION, CandidateSet, Reusable, candidate_recipes, find_reusable
from dreamloom.scrape.collection import CaptionKind, Choice, Collection, Status, Table, open_collection
from dreamloom.scrape.collection.decisions import What
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.collection.known_rows import find_known_rows
from dreamloom.scrape.collection.parts import make_parts
from dreamloom.scrape.collection.schema import Row

VERSION = 5
"""Raised when the code below makes other rows of the same candidates."""


def recipes(collection: Collection, config: CaptionConfig) -> dict[str, str]:
    """Returns part → recipe. Where a collection has choices, only kept images are captioned."""
    recipe_of = part_recipes(collection, config)
    return {part: recipe_of(part) for part in collection.parts(Table.RECORDS)}


def part_recipes(collection: Collection, config: CaptionConfig) -> Callable[[str], str]:
    """Returns a function from part to recipe, which reads the models only once."""
    of_candidates = candidate_recipes(config, collection.name)
    values = recipe_values(config)
    values |= {"blip": of_candidates.captioner, "ranks": of_candidates.clip}
    values |= {"clip": _clip_name(config) if config.needs_clip else None}
    if "{source}" in config.edit.template:
        values["source"] = collection.name
    decided = decided_captions(collection)
    known_by = [recipe("decided captions", VERSION, decided), str(bool(collection.parts(Table.CHOICES)))]

    def recipe_of(part: str) -> str:
        made_from = [collection.stamp(Table.RECORDS, part), str(collection.digest(Table.CHOICES, part)), *known_by]
        return str(remembered(recipe("recipe of captions", VERSION, values, made_from), lambda: compute(part)))

    def compute(part: str) -> str:
        kept = _kept_keys(collection, part)
        what: dict[str, Any] = {"kept": kept}
        if decided:
            keys = collection.read(Table.RECORDS, part, ["key"])["key"].to_pylist() if kept is None else kept
            own = {key: decided[key] for key in keys if key in decided}
            what |= {"decided": own} if own else {}
        return recipe("caption", VERSION, values | what, [collection.stamp(Table.RECORDS, part)])

    return recipe_of


def decided_captions(collection: Collection) -> dict[str, str]:
    """Returns key → the caption that somebody decided on."""
    return {key: word.value or "" for key, word in collection.decisions().standing(What.CAPTION).items()}


def caption(
    collection: Collection, config: CaptionConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Captions every image that was kept by choose, or every image that is ok if there are no choices yet.

    An image that a model has to see and that can't be decoded any more gets no row; the summary counts it by reason.

    Raises:
        UserError: a model can't be used or loaded, there are templates for another source, or there are no records.
    """
    check(config)
    open_collection(collection, Table.RECORDS)
    for source in config.templates.keys() - {collection.name}:
        raise UserError(f"templates.{source}: there is no such source; this collection is called {collection.name}.")
    recipe_of = part_recipes(collection, config)
    wanted = {part: recipe_of(part) for part in (collection.parts(Table.RECORDS) if parts is None else parts)}

    def caption_part(part: str, progress: Progress) -> tuple[list[Row], Summary]:
        with _journal(collection, part) as journal:
            return _caption_part(collection, config, part, journal, progress)

    summary = make_parts(collection, Table.CAPTIONS, config, wanted, caption_part, progress, parts)
    for part in wanted:
        _journal(collection, part).remove()
    return summary


def remaining_share(collection: Collection, config: CaptionConfig, parts: Sequence[str]) -> float:
    """Returns the share of the images of some parts that a model has yet to see. Loads no model."""
    plans = [_plan_part(collection, config, part, ()) for part in parts]
    return sum(len(plan.pending) for plan in plans) / max(1, sum(len(plan.records) for plan in plans))


def _journal(collection: Collection, part: str) -> Journal:
    """Keeps what was found for a part that is not committed yet: on a CPU, a part may take hours."""
    return Journal(collection.root / Table.CAPTIONS / f".journal-{part}.jsonl", {"captions": CANDIDATES_VERSION})


@dataclass(frozen=True)
class _PartPlan:
    """What is to be done for a part."""

    records: list[Row]
    """Of the images to caption, in order."""
    recipes: Mapping[str, str]
    """Key → recipe of the candidates, for images that don't keep the text they came with."""
    reusable: Reusable
    decided: Mapping[str, str]
    """Key → caption, of any images."""

    @property
    def pending(self) -> list[Row]:
        """Records whose images a model has yet to see."""
        done = self.reusable.complete.keys() | self.decided.keys()
        return [r for r in self.records if r["key"] in self.recipes and r["key"] not in done]


def _plan_part(collection: Collection, config: CaptionConfig, part: str, journaled: Sequence[Row]) -> _PartPlan:
    records, of_candidates = _records_to_caption(collection, part), candidate_recipes(config, collection.name)
    wanted = {r["key"]: of_candidates.for_image(r) for r in records if not _keeps_text(r, collection, config)}
    known = find_known_rows(collection, Table.CAPTIONS, wanted.values(), ["candidates", "recipe"]).to_pylist()
    reusable = find_reusable([*known, *journaled], wanted)
    return _PartPlan(records, wanted, reusable, decided_captions(collection))


def _caption_part(
    collection: Collection, config: CaptionConfig, part: str, journal: Journal, progress: Progress
) -> tuple[list[Row], Summary]:
    plan = _plan_part(collection, config, part, list(journal.rows.values()))
    records, pending, complete = plan.records, plan.pending, plan.reusable.complete
    dropped = Counter[str]()
    collection.place.bring([record["image"] for record in pending])
    results = find_candidates(
        config, collection.name, pending, lambda record: collection.image(record["image"]), plan.reusable.unranked
    )
    for done, (record, candidates) in enumerate(results, 1 + len(records) - len(pending)):
        key = record["key"]
        if isinstance(candidates, str):
            dropped[candidates] += 1
        else:
            complete[key] = CandidateSet(candidates, plan.recipes[key])
            journal.add({"key": key, **complete[key].to_row()})
        progress(done, len(records), f"{done - dropped.total()} captioned")
    done_with = complete.keys() | plan.decided.keys()
    captioned = [r for r in records if r["key"] in done_with or r["key"] not in plan.recipes]
    rows = [_caption_row(record, complete.get(record["key"]), config, collection.name) for record in captioned]
    rows = [_decided_row(row, plan.decided[row["key"]]) if row["key"] in plan.decided else row for row in rows]
    doubtful = sum(row["doubtful"] is True for row in rows)
    marked = {DOUBTFUL: doubtful} if doubtful else {}
    return rows, Summary(rows=len(records), kept=len(rows), dropped=dict(dropped), marked=marked)


def _kept_keys(collection: Collection, part: str) -> list[str] | None:
    """Returns the keys that choose kept; None where there are no choices yet."""
    if not collection.parts(Table.CHOICES):
        return None
    collection.stamp(Table.CHOICES, part)  # raises a UserError that says what to do where the part is missing
    keys, choices = (column.to_pylist() for column in collection.read(Table.CHOICES, part, ["key", "choice"]).columns)
    # in Python, as Arrow imports pandas, which takes half a second, to compare with a word
    return [key for key, choice in zip(keys, choices, strict=True) if choice == Choice.KEPT]


def _records_to_caption(collection: Collection, part: str) -> list[Row]:
    import pyarrow.compute as pc

    columns = ["key", "status", "image", "width", "height", "bytes", "sha256", "image_sha256", "text", "text_kind"]
    records = collection.read(Table.RECORDS, part, columns)
    kept = _kept_keys(collection, part)
    if kept is not None:
        chosen: pa.Table = records.filter(pc.is_in(records["key"], pa.array(kept, pa.string())))
    else:
        chosen = records.filter(pc.equal(records["status"], Status.OK))
    return list(chosen.to_pylist())


def _keeps_text(record: Row, collection: Collection, config: CaptionConfig) -> bool:
    """Whether an image keeps the text it came with."""
    if record["text"] is None or record["text_kind"] not in config.keep_kinds:
        return False
    return not (record["text_kind"] == CaptionKind.TEMPLATE and collection.name in config.templates)


def _caption_row(record: Row, candidates: CandidateSet | None, config: CaptionConfig, source: str) -> Row:
    """Returns a row of captions: of the best candidate, or of the text that the image came with; edited."""
    row: Row = {"key": record["key"], "unedited": record["text"], "kind": record["text_kind"], "doubtful": None}
    if candidates is not None:
        row |= _best_candidate(candidates, config)
    from dreamloom.caption.edit import edit  # imports regex

    return {**row, "caption": edit(row["unedited"], config.edit, source, row["kind"])}


def _decided_row(row: Row, caption: str) -> Row:
    """Returns a row with a caption that was decided. It keeps the candidates, for the case that this is taken back."""
    told = {"kind": CaptionKind.HUMAN, "unedited": caption, "caption": caption, "doubtful": None}
    return {name: row[name] for name in ("key", "candidates", "recipe") if name in row} | told


def _best_candidate(candidates: CandidateSet, config: CaptionConfig) -> Row:
    best, margin = select_best(candidates.candidates)
    return {
        "unedited": best.caption,
        "kind": best.kind,
        "model": config.model if best.kind == CaptionKind.MODEL else None,
        "score": best.score,
        "similarity": best.similarity,
        "margin": margin,
        "clip": None if best.similarity is None else _clip_name(config),
        "doubtful": is_doubtful(best, config),
        **candidates.to_row(),
    }


def _clip_name(config: CaptionConfig) -> str:
    return clip_name(config.clip.model, config.clip.pretrained)
