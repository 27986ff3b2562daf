"""What a rule of choose is, and what it sees of the images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import Table


@dataclass(frozen=True)
class Images:
    """The images of all sources, in order of priority: training first, then in the order of sources, then of keys."""

    table: pa.Table
    """Source (its number), part, key, the records' columns that rules ask for, and the scores but the embedding.
    Scores are null for sources that were not scored."""
    sources: Sequence[Source]

    def names(self, rows: Rows) -> list[str]:
        """Returns "source/key" of these rows."""
        keys = self.table.select(["source", "key"]).take(rows).to_pylist()
        return [f"{self.sources[row['source']].name}/{row['key']}" for row in keys]

    def scored(self, rows: Rows) -> bool:
        """Whether there are such rows, and each has scores."""
        return bool(len(rows)) and bool(self.table["phash"].is_valid().to_numpy()[rows].all())

    def embeddings(self, rows: Rows) -> NDArray[np.float32]:
        """Reads the CLIP embeddings [m, d] of m rows from the parts that hold them."""
        wanted = self.table.select(["source", "part", "key"]).take(rows)
        embeddings: NDArray[np.float32] | None = None
        for place in wanted.group_by(["source", "part"]).aggregate([]).to_pylist():
            in_part = pc.and_(pc.equal(wanted["source"], place["source"]), pc.equal(wanted["part"], place["part"]))
            at = np.flatnonzero(in_part.to_numpy())
            collection = self.sources[place["source"]].collection
            scores = collection.read(Table.SCORES, place["part"], ["key", "embedding"])
            which = pc.index_in(wanted["key"].take(at), scores["key"].combine_chunks())
            values = scores["embedding"].combine_chunks().take(which.combine_chunks()).flatten()
            vectors = values.to_numpy(zero_copy_only=False).reshape(len(at), -1).astype(np.float32)
            if embeddings is None:
                embeddings = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
            embeddings[at] = vectors
        if embeddings is None:
            raise ValueError("no rows were asked for")
        return embeddings


@dataclass(frozen=True)
class Rule:
    """A condition that images meet to go on."""

    name: str
    """The choice of images that break it, as counts and tables have it: "low_aesthetic". Stable."""
    find: Callable[[Images, Rows, ChooseConfig], Mapping[int, str]]
    """Finds, among the rows that earlier rules kept, those that break the rule: row → detail."""
    explain: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]
    """Says in words what an image passed, given the config and the image's record and scores; None: nothing."""
    field: str | None = None
    """The field of ChooseConfig that sets it; None: it always applies."""
    off: Any = None
    """The value of `field` that turns the rule off."""
    score: str | None = None
    """The score that it can't do without."""
    columns: tuple[str, ...] = ()
    """The columns of records that it looks at, beside the key."""
    ground_truth_only: bool = False

    def is_on(self, config: Mapping[str, Any]) -> bool:
        """Whether a config, as a mapping, turns the rule on."""
        return self.field is None or config.get(self.field, self.off) != self.off
