"""Finds the candidates of many images, batch by batch: threads decode ahead of the models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from dreamloom.base.images.missing_end import decode_own
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.threads import map_ordered
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.ranking import Candidate, CandidateFinder, PreparedImage, candidate_finder
from dreamloom.scrape.collection.schema import Row


def find_candidates(
    config: CaptionConfig,
    source: str,
    records: Sequence[Row],
    image_of: Callable[[Row], Path | bytes],
    unranked: Mapping[str, Sequence[Candidate]],
) -> Iterator[tuple[Row, list[Candidate] | str]]:
    """Yields each record with its image's candidates, or with the reason why there are none.

    Without records, loads no model.

    Args:
        config: The caption stage's.
        source: The name of the source or folder.
        records: Key, text and text_kind of each image.
        image_of: Returns the image's file, or its bytes.
        unranked: Key → what the captioning model generated earlier; CLIP has yet to rank it.

    Raises:
        UserError: a model can't be loaded.
    """
    if not records:
        return
    finder = candidate_finder(config, source, all(record["key"] in unranked for record in records))

    def prepare(record: Row) -> PreparedImage | str:
        return _prepare(finder, record, image_of(record), unranked)

    images = map_ordered(prepare, records, config.num_workers, 2 * config.batch_size)
    pairs = zip(records, images, strict=True)
    while batch := list(islice(pairs, config.batch_size)):
        prepared = [image for _, image in batch if isinstance(image, PreparedImage)]
        candidates = iter(finder.find(prepared) if prepared else [])
        for record, image in batch:
            yield record, next(candidates) if isinstance(image, PreparedImage) else image


def _prepare(
    finder: CandidateFinder, record: Row, source: Path | bytes, unranked: Mapping[str, Sequence[Candidate]]
) -> PreparedImage | str:
    """Decodes an image for the models, or returns the reason why it can't be decoded."""
    try:
        # twice the model's side: large photos decode faster, and nothing of it shows once they are shrunk
        image = decode_own(source, at_least=2 * finder.side)
        return finder.prepare(record, image, unranked.get(record["key"]))
    except ImageError as error:
        return error.reason
