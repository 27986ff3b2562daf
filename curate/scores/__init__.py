"""The scores that the score stage computes. A new one is a file beside these, and a line in this one."""

import pyarrow as pa

from dreamloom.curate.scores.aesthetic import AESTHETIC
from dreamloom.curate.scores.embedding import EMBEDDING
from dreamloom.curate.scores.phash import PHASH
from dreamloom.curate.scores.score import Score
from dreamloom.curate.scores.similarity import SIMILARITY
from dreamloom.scrape.collection import SCHEMAS, Table

SCORES: list[Score] = []
"""In the order in which traces show them."""


def register_score(score: Score) -> None:
    """Adds a score. If the scores table has no column of its name, it gets one, after the others."""
    SCORES.append(score)
    schema = SCHEMAS[Table.SCORES]
    if score.name not in schema.names:
        SCHEMAS[Table.SCORES] = schema.append(pa.field(score.name, score.type))


for _score in (EMBEDDING, AESTHETIC, SIMILARITY, PHASH):
    register_score(_score)
