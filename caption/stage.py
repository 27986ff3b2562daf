"""The caption stage: an image keeps the text it came with where that is of a kind to keep; models find the others'.

What a model said of an image is taken over from the part that is made again, and from a part that a kill left unmade,
where the image and all that its words hang on are the same. Another threshold in choose, or other edits, so ask no
model again. Threads decode and scale images ahead of the model, so that it never waits.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.base.clip_config import clip_name
from dreamloom.base.errors import UserError
from dreamloom.base.pixels import ImageError, decode
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe, recipe_values
from dreamloom.base.threads import map_ordered
from dreamloom.caption.check import check
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.edit import edit
from dreamloom.caption.ranking import Candidate, Row, Seen, Writer, best, writer_of
from dreamloom.caption.reuse import WORDS_VERSION, Found, Known, asked_of, known
from dreamloom.scrape.collection import CaptionKind, Choice, Collection, Status, Table
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.collection.parts import make_parts

VERSION = 3
"""Raised when the code below starts to make other rows of the same candidates."""

DOUBTFUL = "doubtful"
"""What the summary calls captions below `doubtful_below`."""


def recipes(collection: Collection, config: CaptionConfig) -> dict[str, str]:
    """Part → recipe. Where a collection has choices, only what they kept is captioned."""
    recipe_of = recipes_by(collection, config)
    return {part: recipe_of(part) for part in collection.parts(Table.RECORDS)}


def recipes_by(collection: Collection, config: CaptionConfig) -> Callable[[str], str]:
    """What gives the recipe of a part by this config; it looks at the models once."""
    asked = asked_of(config, collection.name)
    made = recipe_values(config)
    made |= {"blip": asked.blip, "ranks": asked.clip, "clip": _clip_name(config) if config.needs_clip else None}

    def recipe_of(part: str) -> str:
        chosen = {"kept": _kept(collection, part)}
        return recipe("caption", VERSION, made | chosen, [collection.stamp(Table.RECORDS, part)])

    return recipe_of


def caption(
    collection: Collection, config: CaptionConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Captions every image that was chosen (every one that is ok, where nothing was chosen yet).

    One that has to be looked at and can't be decoded any more gets no row; the summary says why.

    Raises:
        UserError: a model is none, or can't be loaded; or there are templates for another source.
    """
    check(config)
    for source in config.templates.keys() - {collection.name}:
        raise UserError(f"templates.{source}: there is no such source; this collection is called {collection.name}.")
    recipe_of = recipes_by(collection, config)
    made = {part: recipe_of(part) for part in (collection.parts(Table.RECORDS) if parts is None else parts)}

    def work(part: str, progress: Progress) -> tuple[list[dict[str, Any]], Summary]:
        with _journal(collection, part) as journal:
            return _caption_part(collection, config, part, journal, progress)

    summary = make_parts(collection, Table.CAPTIONS, config, made, work, progress, parts)
    for part in made:
        _journal(collection, part).remove()
    return summary


def left(collection: Collection, config: CaptionConfig, parts: Sequence[str]) -> float:
    """The share of the images of some parts that a model has to look at yet. Loads none."""
    begun = [_begin(collection, config, part, ()) for part in parts]
    return sum(len(one.unseen) for one in begun) / max(1, sum(len(one.rows) for one in begun))


def _journal(collection: Collection, part: str) -> Journal:
    """What was found for a part that is not committed yet: a processor may work on one for hours."""
    return Journal(collection.root / Table.CAPTIONS / f".journal-{part}.jsonl", {"captions": WORDS_VERSION})


@dataclass(frozen=True)
class _Begun:
    """A part, before any model is asked."""

    rows: list[Row]
    """Records of the images to caption, in order."""
    wanted: Mapping[str, str]
    """Key → recipe of the candidates, for those that do not keep the text they came with."""
    known: Known

    @property
    def unseen(self) -> list[Row]:
        """Rows whose images have to be looked at."""
        return [row for row in self.rows if row["key"] in self.wanted and row["key"] not in self.known.found]


def _begin(collection: Collection, config: CaptionConfig, part: str, noted: Sequence[Row]) -> _Begun:
    rows, asked = _chosen(collection, part), asked_of(config, collection.name)
    wanted = {row["key"]: asked.of(row) for row in rows if not _stays(row, collection, config)}
    return _Begun(rows, wanted, known([*_there(collection, part), *noted], wanted))


def _caption_part(
    collection: Collection, config: CaptionConfig, part: str, journal: Journal, progress: Progress
) -> tuple[list[dict[str, Any]], Summary]:
    begun = _begin(collection, config, part, list(journal.rows.values()))
    rows, wanted, found = begun.rows, begun.wanted, begun.known.found
    lost = Counter[str]()
    unseen = begun.unseen
    for done, (row, candidates) in enumerate(
        _find(collection, config, unseen, begun.known.said), 1 + len(rows) - len(unseen)
    ):
        if isinstance(candidates, str):
            lost[candidates] += 1
        else:
            made = found[row["key"]] = Found(candidates, wanted[row["key"]])
            journal.add({"key": row["key"], **made.to_row()})
        progress(done, len(rows), f"{done - lost.total()} captioned")
    there = [row for row in rows if row["key"] in found or row["key"] not in wanted]
    captions = [_row(row, found.get(row["key"]), config, collection.name) for row in there]
    doubtful = sum(row["doubtful"] is True for row in captions)
    marked = {DOUBTFUL: doubtful} if doubtful else {}
    return captions, Summary(rows=len(rows), kept=len(captions), dropped=dict(lost), marked=marked)


def _find(
    collection: Collection, config: CaptionConfig, rows: Sequence[Row], said: Mapping[str, Sequence[Candidate]]
) -> Iterator[tuple[Row, list[Candidate] | str]]:
    """Each row with its image's candidates, or with why there are none. No rows: no model is loaded."""
    if not rows:
        return
    writer = writer_of(config, collection.name, all(row["key"] in said for row in rows))
    looked = map_ordered(partial(_look, collection, writer, said), rows, config.num_workers, 2 * config.batch_size)
    todo = zip(rows, looked, strict=True)
    while batch := list(islice(todo, config.batch_size)):
        seen = [one for _, one in batch if isinstance(one, Seen)]
        written = iter(writer.write(seen) if seen else [])
        for row, one in batch:
            yield row, next(written) if isinstance(one, Seen) else one


def _kept(collection: Collection, part: str) -> list[str] | None:
    """The keys that were chosen, by whatever rule; None where nothing was chosen yet."""
    if not collection.parts(Table.CHOICES):
        return None
    collection.stamp(Table.CHOICES, part)  # says what to do where the part is not there
    choices = collection.read(Table.CHOICES, part, ["key", "choice"])
    return list(choices.filter(pc.equal(choices["choice"], Choice.KEPT))["key"].to_pylist())


def _chosen(collection: Collection, part: str) -> list[Row]:
    """Records of the images to caption, in order."""
    columns = ["key", "status", "image", "width", "height", "bytes", "sha256", "text", "text_kind"]
    records = collection.read(Table.RECORDS, part, columns)
    kept = _kept(collection, part)
    if kept is not None:
        chosen: pa.Table = records.filter(pc.is_in(records["key"], pa.array(kept, pa.string())))
    else:
        chosen = records.filter(pc.equal(records["status"], Status.OK))
    return list(chosen.to_pylist())


def _stays(row: Row, collection: Collection, config: CaptionConfig) -> bool:
    """Whether an image keeps the text it came with."""
    if row["text"] is None or row["text_kind"] not in config.keep_kinds:
        return False
    return not (row["text_kind"] == CaptionKind.TEMPLATE and collection.name in config.templates)


def _there(collection: Collection, part: str) -> list[dict[str, Any]]:
    """What the part that lies there has of each image: key, candidates, recipe."""
    if part not in collection.parts(Table.CAPTIONS):
        return []
    return list(collection.read(Table.CAPTIONS, part, ["key", "candidates", "recipe"]).to_pylist())


def _look(collection: Collection, writer: Writer, said: Mapping[str, Sequence[Candidate]], row: Row) -> Seen | str:
    """An image as the models take it, or why there is none."""
    try:
        # twice the model's side: large photos decode faster, and nothing of it shows once they are shrunk
        picture = decode(collection.root / row["image"], at_least=2 * writer.side)
        return writer.look(row, picture, said.get(row["key"]))
    except ImageError as error:
        return error.reason


def _row(record: Row, found: Found | None, config: CaptionConfig, source: str) -> dict[str, Any]:
    """A row of captions: of what was found, or of the text that the image came with; edited."""
    made = {"key": record["key"], "unedited": record["text"], "kind": record["text_kind"], "doubtful": None}
    if found is not None:
        made |= _chosen_of(found, config)
    return {**made, "caption": edit(made["unedited"], config.edit, source)}


def _chosen_of(found: Found, config: CaptionConfig) -> dict[str, Any]:
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
        "doubtful": None if cosine is None or config.doubtful_below is None else cosine < config.doubtful_below,
        **found.to_row(),
    }


def _clip_name(config: CaptionConfig) -> str:
    return clip_name(config.clip.model, config.clip.pretrained)
