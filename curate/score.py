"""Scores: each image's CLIP embedding, aesthetic, likeness to its text, and perceptual hash.

No threshold is here: what the scores are for is for choose to say, so that another taste scores nothing again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dreamloom.base.clip import Clip, load_clip
from dreamloom.base.clip_config import check_clip, clip_models
from dreamloom.base.errors import UserError
from dreamloom.base.files import fingerprint
from dreamloom.base.pixels import ImageError, decode
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.base.threads import map_ordered
from dreamloom.curate.aesthetic import Head, load_head
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.phash import phash
from dreamloom.scrape.collection import SCHEMAS, Collection, Status, Table
from dreamloom.scrape.collection.parts import make_parts

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1


def check(config: ScoreConfig) -> None:
    """Sees that the models are there, without loading them.

    Raises:
        UserError: a model or a file is not there.
    """
    check_clip(config)
    if config.aesthetic_head is not None and not config.aesthetic_head.expanduser().is_file():
        raise UserError(f"The aesthetic head {config.aesthetic_head} is not there; give its file, or leave it out.")


def recipes(collection: Collection, config: ScoreConfig) -> dict[str, str]:
    """Part → recipe."""
    models = _models(config)
    return {
        part: recipe("score", VERSION, config, [collection.stamp(Table.RECORDS, part)], models)
        for part in collection.parts(Table.RECORDS)
    }


def _models(config: ScoreConfig) -> dict[str, str]:
    """Their fingerprints."""
    models = clip_models(config)
    if config.aesthetic_head is not None:
        models["head"] = fingerprint(config.aesthetic_head)
    return models


def score(
    collection: Collection, config: ScoreConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Scores every image of a collection. One that can't be decoded any more gets no row; the summary says why.

    Raises:
        UserError: a model is not there, or the head is for another model.
    """
    check(config)

    def work(part: str, progress: Progress) -> tuple[pa.Table, Summary]:
        return _score_part(collection, config, part, progress)

    made_by = recipes(collection, config)
    return make_parts(collection, Table.SCORES, config, made_by, work, progress, parts, _models(config))


@dataclass(frozen=True)
class _Seen:
    """What a decoding thread gives: the model's input and the hash, or why there is none."""

    row: Mapping[str, Any]
    prepared: "Tensor | None" = None
    phash: int = 0
    reason: str = ""


def _score_part(collection: Collection, config: ScoreConfig, part: str, progress: Progress) -> tuple[pa.Table, Summary]:
    records = collection.read(Table.RECORDS, part, ["key", "status", "image", "text"])
    rows = records.filter(pc.equal(records["status"], Status.OK)).to_pylist()
    summary, tables = Summary(rows=len(rows)), [SCHEMAS[Table.SCORES].empty_table()]
    if not rows:
        return tables[0], summary
    clip = load_clip(config, config.device)
    head = _head_for(clip, config)
    seen = map_ordered(partial(_look, collection, clip), rows, config.num_workers, 2 * config.batch_size)
    done = 0
    while batch := list(islice(seen, config.batch_size)):
        for bad in (s for s in batch if s.prepared is None):
            summary.dropped[bad.reason] = summary.dropped.get(bad.reason, 0) + 1
        good = [s for s in batch if s.prepared is not None]
        if good:
            tables.append(_score_batch(clip, head, good))
        summary.kept += len(good)
        done += len(batch)
        progress(done, len(rows), f"{summary.kept} scored")
    return pa.concat_tables(tables), summary


def _head_for(clip: Clip, config: ScoreConfig) -> Head | None:
    if config.aesthetic_head is None:
        return None
    head = load_head(config.aesthetic_head)
    if len(head.weight) != clip.width:
        raise UserError(
            f"The aesthetic head {config.aesthetic_head} is for embeddings of {len(head.weight)} numbers, "
            f"{config.model} makes {clip.width}; give the head that belongs to the model."
        )
    return head


def _look(collection: Collection, clip: Clip, row: Mapping[str, Any]) -> _Seen:
    try:
        # twice the model's side: the JPEG decoder's own scaling then shows in no score, and large photos decode faster
        picture = decode(collection.root / row["image"], at_least=2 * clip.side)
    except ImageError as error:
        return _Seen(row, reason=error.reason)
    return _Seen(row, clip.prepare(picture), phash(picture))


def _score_batch(clip: Clip, head: Head | None, batch: Sequence[_Seen]) -> pa.Table:
    embeddings = clip.embed_images([s.prepared for s in batch if s.prepared is not None])
    texts = [(i, s.row["text"]) for i, s in enumerate(batch) if (s.row["text"] or "").strip()]
    similarity: list[float | None] = [None] * len(batch)
    if texts:
        at = [i for i, _ in texts]
        cosines = (embeddings[at] * clip.embed_texts([text for _, text in texts])).sum(axis=1)
        for i, cosine in zip(at, cosines.tolist(), strict=True):
            similarity[i] = cosine
    columns = {
        "key": pa.array([s.row["key"] for s in batch], pa.string()),
        "embedding": _lists(embeddings.astype(np.float16)),
        "aesthetic": pa.nulls(len(batch), pa.float32()) if head is None else pa.array(head.score(embeddings)),
        "similarity": pa.array(similarity, pa.float32()),
        "phash": pa.array([s.phash for s in batch], pa.int64()),
    }
    return pa.table(columns, schema=SCHEMAS[Table.SCORES])


def _lists(values: NDArray[np.float16]) -> pa.Array:
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1), pa.float16()))
