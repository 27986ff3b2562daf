"""The score stage: computes the scores of every image, such as its CLIP embedding, aesthetic score and hash.

Thresholds belong to dreamloom.curate.choose, so that changing one scores nothing again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.images.missing_end import decode_own
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.models.clip import Clip, load_clip
from dreamloom.base.models.clip_config import check_clip, clip_models
from dreamloom.base.models.weights import check_weights
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.base.threads import map_ordered
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.known_scores import KnownScores, RowRecipes, find_known_scores, row_recipes
from dreamloom.curate.scores import SCORES
from dreamloom.curate.scores.score import Batch, Compute
from dreamloom.scrape.collection import SCHEMAS, Collection, Status, Table, open_collection
from dreamloom.scrape.collection.known_rows import first_half
from dreamloom.scrape.collection.parts import make_parts

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2


def check(config: ScoreConfig) -> None:
    """Checks that the models exist, without loading them.

    Raises:
        UserError: a model or a file doesn't.
    """
    check_clip(config)
    for role, path in _score_models(config).items():
        if not path.expanduser().is_file():
            raise UserError(f"The {role.replace('_', ' ')} {path} is not there; name its file, or leave it out.")
    check_weights(path.expanduser() for path in _score_models(config).values())


def recipes(collection: Collection, config: ScoreConfig) -> dict[str, str]:
    """Returns part → recipe."""
    models = _fingerprints(config)
    return {
        part: recipe("score", VERSION, config, [collection.stamp(Table.RECORDS, part)], models)
        for part in collection.parts(Table.RECORDS)
    }


def _score_models(config: ScoreConfig) -> dict[str, Path]:
    """Field → file of the models that scores need beside CLIP, as far as the config names them."""
    fields = (score.model.field for score in SCORES if score.model is not None)
    return {field: Path(path) for field in fields if (path := getattr(config, field)) is not None}


def _fingerprints(config: ScoreConfig) -> dict[str, str]:
    """Role → fingerprint of each model, and the versions of scores that have one."""
    paths = _score_models(config)
    models = {
        score.model.role: fingerprint(paths[score.model.field])
        for score in SCORES
        if score.model is not None and score.model.field in paths
    }
    return clip_models(config) | models | {f"{s.name} score": str(s.version) for s in SCORES if s.version}


def recipes_of_rows(config: ScoreConfig) -> RowRecipes:
    """Returns the recipes by which the scores of single images are known."""
    return row_recipes(config, VERSION, _fingerprints(config))


def score(
    collection: Collection, config: ScoreConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Scores every image of a collection.

    An image that can't be decoded any more gets no row; the summary counts it by reason.

    Raises:
        UserError: a model is missing, or doesn't fit CLIP; or there are no records.
    """
    check(config)
    open_collection(collection, Table.RECORDS)

    def score_part(part: str, progress: Progress) -> tuple[pa.Table, Summary]:
        return _score_part(collection, config, part, progress)

    part_recipes, models = recipes(collection, config), _fingerprints(config)
    return make_parts(collection, Table.SCORES, config, part_recipes, score_part, progress, parts, models)


def _score_part(collection: Collection, config: ScoreConfig, part: str, progress: Progress) -> tuple[pa.Table, Summary]:
    import pyarrow.compute as pc

    records = collection.read(Table.RECORDS, part, ["key", "status", "image", "text", "image_sha256"])
    rows = records.filter(pc.equal(records["status"], Status.OK)).to_pylist()
    of_rows = recipes_of_rows(config)
    for row in rows:
        row["recipe"] = of_rows.of(row)
    known = find_known_scores(collection, [row["recipe"] for row in rows if row["recipe"]])
    whole = {row["key"]: known.whole[row["recipe"]] for row in rows if row["recipe"] in known.whole}
    taken = known.rows.take(pa.array(list(whole.values()), pa.int64()))
    taken = taken.set_column(0, SCHEMAS[Table.SCORES].field("key"), pa.array(list(whole), pa.string()))
    collection.place.bring([row["image"] for row in rows if first_half(row["recipe"] or "") not in known.images])
    new, summary = score_records(
        collection.image, config, [row for row in rows if row["key"] not in whole], progress, known
    )
    scores = pa.concat_tables([taken, new])
    summary.rows, summary.kept = summary.rows + len(taken), summary.kept + len(taken)
    places = pc.index_in(records["key"], scores["key"].combine_chunks()).combine_chunks()
    return scores.take(places.drop_null()), summary


def score_records(
    image_of: Callable[[str], Path | bytes],
    config: ScoreConfig,
    rows: Sequence[Mapping[str, Any]],
    progress: Progress = silent,
    known: KnownScores | None = None,
) -> tuple[pa.Table, Summary]:
    """Computes the scores of images, in the schema of the scores table.

    Args:
        image_of: returns the file of an image, or its bytes.
        config: the stage's.
        rows: key, image (its name) and text of each, and the recipe of its row, if it has one.
        progress: called with the number of images done.
        known: scores that were computed before: of these images only the text is looked at.

    Raises:
        UserError: a model can't be loaded, or doesn't fit CLIP.
    """
    summary, tables = Summary(rows=len(rows)), [SCHEMAS[Table.SCORES].empty_table()]
    if not rows:
        return tables[0], summary
    clip = load_clip(config, config.device)
    computes = {score.name: score.load(config, clip) for score in SCORES}
    images = map_ordered(partial(_prepare, image_of, clip, known), rows, config.num_workers, 2 * config.batch_size)
    done = 0
    while batch := list(islice(images, config.batch_size)):
        for image in batch:
            if image.reason:
                summary.dropped[image.reason] = summary.dropped.get(image.reason, 0) + 1
        decoded = [image for image in batch if not image.reason]
        if decoded:
            tables.append(_score_batch(clip, computes, decoded, known))
        summary.kept += len(decoded)
        done += len(batch)
        progress(done, len(rows), f"{summary.kept} scored")
    return pa.concat_tables(tables), summary


@dataclass(frozen=True)
class _Prepared:
    """An image as a decoding thread hands it over, or the reason why it can't be decoded."""

    record: Mapping[str, Any]
    pixels: "Tensor | None" = None
    """CLIP's input; None: it was seen before."""
    values: Mapping[str, Any] | None = None
    """Score name → value computed from the decoded image."""
    known: int | None = None
    """Its place among the known scores."""
    reason: str = ""


def _prepare(
    image_of: Callable[[str], Path | bytes], clip: Clip, known: KnownScores | None, record: Mapping[str, Any]
) -> _Prepared:
    place = known.images.get(first_half(record.get("recipe") or "")) if known else None
    if known and place is not None:
        values = {score.name: known.rows[score.name][place].as_py() for score in SCORES if score.of_image is not None}
        return _Prepared(record, values=values, known=place)
    try:
        # twice the model's side: the JPEG decoder's own scaling then shows in no score, and large photos decode faster
        image = decode_own(image_of(record["image"]), at_least=2 * clip.side)
    except ImageError as error:
        return _Prepared(record, reason=error.reason)
    values = {score.name: score.of_image(image) for score in SCORES if score.of_image is not None}
    return _Prepared(record, clip.prepare(image), values)


def _score_batch(
    clip: Clip, computes: Mapping[str, Compute], images: Sequence[_Prepared], known: KnownScores | None
) -> pa.Table:
    pixels = [image.pixels for image in images if image.pixels is not None]
    places = [image.known for image in images if image.known is not None]
    embeddings = np.empty((len(images), clip.width), dtype=np.float16)
    if pixels:
        embeddings[[image.pixels is not None for image in images]] = clip.embed_images(pixels)
    if known and places:
        embeddings[[image.known is not None for image in images]] = known.embeddings(places)
    # all other scores are of the embedding as the table has it, so that they are the same where it is known
    records = [image.record for image in images]
    batch = Batch(records, embeddings.astype(np.float32), [image.values or {} for image in images])
    columns = {name: compute(batch) for name, compute in computes.items()}
    columns["key"] = pa.array([record["key"] for record in records], pa.string())
    columns["recipe"] = pa.array([record.get("recipe") for record in records], pa.string())
    return pa.table(columns, schema=SCHEMAS[Table.SCORES])
