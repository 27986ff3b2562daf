"""The caption stage: a picture keeps the text it came with where that is of a kind to keep; models find the others'.

What a model said of a picture is taken over from the part that is made again, and from a part that a kill left unmade,
where the picture and all that its words hang on are the same. Another threshold in choose, or other edits, so ask no
model again. Threads decode and scale pictures ahead of the model, so that it never waits.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from base.clip import clip_models, clip_name
from base.errors import UserError
from base.files import fingerprint
from base.pixels import PictureError, decode
from base.progress import Progress, silent
from base.stage import Summary, recipe
from base.threads import in_order
from caption.candidates import Candidate, Row, Seen, Writer, best, writer_of
from caption.config import CaptionConfig, check
from caption.edit import edit
from scrape.collection import CaptionKind, Choice, Collection, Status, Table
from scrape.journal import Journal
from scrape.parts import make_parts

VERSION = 2
"""Raised when the code below starts to make other rows of the same candidates."""
WORDS_VERSION = 1
"""Raised when the code of the models starts to find other candidates."""

DOUBTFUL = "doubtful"
"""What the summary calls captions below the floor."""


def recipes(collection: Collection, config: CaptionConfig) -> dict[str, str]:
    """Part → recipe. Where a collection has choices, only what they kept is captioned."""
    tables = [Table.RECORDS, Table.CHOICES] if collection.parts(Table.CHOICES) else [Table.RECORDS]
    made = config.model_dump(mode="json", include={"model", "keep", "floor", "edit"})
    made |= {"words": _words(collection, config), "clip": _clip_name(config) if config.asks_clip else None}
    return {
        part: recipe("caption", VERSION, made, [collection.stamp(table, part) for table in tables])
        for part in collection.parts(Table.RECORDS)
    }


def caption(
    collection: Collection, config: CaptionConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Captions every picture that was chosen (every one that is ok, where nothing was chosen yet).

    One that has to be looked at and can't be decoded any more gets no row; the summary says why.

    Raises:
        UserError: a model is none, or can't be loaded; or there are templates for another source.
    """
    check(config)
    for source in config.templates.keys() - {collection.name}:
        raise UserError(f"templates.{source}: there is no such source; this collection is called {collection.name}.")
    made = recipes(collection, config)

    def work(part: str, progress: Progress) -> tuple[list[dict[str, Any]], Summary]:
        with _journal(collection, part) as journal:
            return _caption_part(collection, config, part, journal, progress)

    summary = make_parts(collection, Table.CAPTIONS, config, made, work, progress, parts)
    for part in made if parts is None else parts:
        _journal(collection, part).remove()
    return summary


def _journal(collection: Collection, part: str) -> Journal:
    """What was found for a part that is not committed yet: a processor may work on one for hours."""
    return Journal(collection.root / Table.CAPTIONS / f".journal-{part}.jsonl", {"captions": WORDS_VERSION})


def _words(collection: Collection, config: CaptionConfig) -> str:
    """The recipe of the candidates of a source's pictures: all that they hang on but the picture.

    Models count by what is in them, not by where they lie.
    """
    templates = config.templates.get(collection.name)
    clip = clip_models(config.clip) | {"precision": config.clip.precision}
    if templates is not None:
        return recipe("templates", WORDS_VERSION, {"templates": templates}, (), clip)
    fields = {"prompt", "beams", "top_p", "candidates", "min_length", "max_length", "no_repeat", "precision"}
    fields |= {"keep_alt_text_if_better"} | ({"seed"} if config.top_p is not None else set())
    models = {"blip": fingerprint(config.model)} | (clip if config.ranks else {})
    return recipe("words", WORDS_VERSION, config.model_dump(mode="json", include=fields), (), models)


@dataclass(frozen=True)
class _Found:
    """A picture's candidates, and the recipe by which they were found."""

    candidates: list[Candidate]
    recipe: str

    def to_row(self) -> dict[str, Any]:
        """As the captions table has it."""
        return {"recipe": self.recipe, "candidates": [one.to_row() for one in self.candidates]}


def _caption_part(
    collection: Collection, config: CaptionConfig, part: str, journal: Journal, progress: Progress
) -> tuple[list[dict[str, Any]], Summary]:
    rows = _chosen(collection, part)
    asked = [row for row in rows if not _stays(row, collection, config)]
    words = _words(collection, config)
    wanted = {row["key"]: recipe(words, 1, _identity(row, config)) for row in asked}
    found = _taken_over([*_there(collection, part), *journal.rows.values()], wanted)
    lost = Counter[str]()
    others = [row for row in asked if row["key"] not in found]
    for done, (row, candidates) in enumerate(_find(collection, config, others), 1 + len(rows) - len(others)):
        if isinstance(candidates, str):
            lost[candidates] += 1
        else:
            made = found[row["key"]] = _Found(candidates, wanted[row["key"]])
            journal.add({"key": row["key"], **made.to_row()})
        progress(done, len(rows), f"{done - lost.total()} captioned")
    there = [row for row in rows if row["key"] in found or row["key"] not in wanted]
    captions = [_row(row, found.get(row["key"]), config, collection.name) for row in there]
    doubtful = sum(row["doubtful"] is True for row in captions)
    marked = {DOUBTFUL: doubtful} if doubtful else {}
    return captions, Summary(rows=len(rows), kept=len(captions), dropped=dict(lost), marked=marked)


def _find(
    collection: Collection, config: CaptionConfig, rows: Sequence[Row]
) -> Iterator[tuple[Row, list[Candidate] | str]]:
    """Each row with its picture's candidates, or with why there are none. No rows: no model is loaded."""
    if not rows:
        return
    writer = writer_of(config, collection.name)
    looked = in_order(partial(_look, collection, writer), rows, config.workers, 2 * config.batch)
    todo = zip(rows, looked, strict=True)
    while batch := list(islice(todo, config.batch)):
        seen = [one for _, one in batch if isinstance(one, Seen)]
        written = iter(writer.write(seen) if seen else [])
        for row, one in batch:
            yield row, next(written) if isinstance(one, Seen) else one


def _chosen(collection: Collection, part: str) -> list[dict[str, Any]]:
    """Records of the pictures to caption, in order."""
    columns = ["key", "status", "image", "width", "height", "bytes", "sha256", "text", "text_kind"]
    records = collection.read(Table.RECORDS, part, columns)
    if collection.parts(Table.CHOICES):
        choices = collection.read(Table.CHOICES, part, ["key", "choice"])
        wanted = choices.filter(pc.equal(choices["choice"], Choice.KEPT))["key"]
        chosen: pa.Table = records.filter(pc.is_in(records["key"], wanted))
    else:
        chosen = records.filter(pc.equal(records["status"], Status.OK))
    return list(chosen.to_pylist())


def _stays(row: Row, collection: Collection, config: CaptionConfig) -> bool:
    """Whether a picture keeps the text it came with."""
    if row["text"] is None or row["text_kind"] not in config.keep:
        return False
    return not (row["text_kind"] == CaptionKind.TEMPLATE and collection.name in config.templates)


def _identity(row: Row, config: CaptionConfig) -> dict[str, Any]:
    """What a record says of a picture that its candidates hang on."""
    texts = ("text", "text_kind") if config.keep_alt_text_if_better else ()
    return {name: row[name] for name in ("key", "sha256", "width", "height", "bytes", *texts)}


def _there(collection: Collection, part: str) -> list[dict[str, Any]]:
    """What the part that lies there has of each picture: key, candidates, recipe."""
    if part not in collection.parts(Table.CAPTIONS):
        return []
    return list(collection.read(Table.CAPTIONS, part, ["key", "candidates", "recipe"]).to_pylist())


def _taken_over(rows: Sequence[Row], wanted: Mapping[str, str]) -> dict[str, _Found]:
    """Key → what was found before by the recipe that is wanted now."""
    return {
        row["key"]: _Found([Candidate.from_row(one) for one in row["candidates"]], row["recipe"])
        for row in rows
        if row["recipe"] is not None and wanted.get(row["key"]) == row["recipe"]
    }


def _look(collection: Collection, writer: Writer, row: Row) -> Seen | str:
    """A picture as the models take it, or why there is none."""
    try:
        # twice the model's side: large photos decode faster, and nothing of it shows once they are shrunk
        return writer.look(row, decode(collection.root / row["image"], at_least=2 * writer.side))
    except PictureError as error:
        return error.reason


def _row(record: Row, found: _Found | None, config: CaptionConfig, source: str) -> dict[str, Any]:
    """A row of captions: of what was found, or of the text that the picture came with; edited."""
    made = {"key": record["key"], "unedited": record["text"], "kind": record["text_kind"], "doubtful": None}
    if found is not None:
        made |= _chosen_of(found, config)
    return {**made, "caption": edit(made["unedited"], config.edit, source)}


def _chosen_of(found: _Found, config: CaptionConfig) -> dict[str, Any]:
    chosen, margin = best(found.candidates)
    cosine = chosen.similarity
    return {
        "unedited": chosen.caption,
        "kind": chosen.kind,
        "model": config.model if chosen.kind == CaptionKind.MODEL else None,
        "score": chosen.score,
        "similarity": cosine,
        "margin": margin,
        "clip": None if cosine is None else _clip_name(config),
        "doubtful": None if cosine is None or config.floor is None else cosine < config.floor,
        **found.to_row(),
    }


def _clip_name(config: CaptionConfig) -> str:
    return clip_name(config.clip.model, config.clip.weights)
