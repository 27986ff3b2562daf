"""What a rule of choose is, and what it sees of the images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules import priority
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.nearest import Embeddings
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.decisions import What


@dataclass(frozen=True)
class Part:
    """Where the images of a part lie in `Images.table`."""

    source: int
    name: str
    first: int
    rows: int


@dataclass(frozen=True)
class Images:
    """The images of all sources, source by source, part by part, in the order of records."""

    table: pa.Table
    """Source (its number), key, the records' columns that rules ask for, the scores but the embedding, and what is
    decided (dreamloom.curate.rules.decided). Scores are null for sources that were not scored. Texts are of pyarrow's
    large_string, as together they may pass 2 GiB."""
    sources: Sequence[Source]
    parts: Sequence[Part]

    @cached_property
    def rank(self) -> Rows:
        """Returns the place of each row when copies compete (dreamloom.curate.rules.priority)."""
        return priority.rank(self.table, self.sources)

    @cached_property
    def is_kept(self) -> NDArray[np.bool_]:
        """Whether a decision keeps the image of each row."""
        import pyarrow.compute as pc

        return np.asarray(pc.fill_null(pc.equal(self.table["decided"], str(What.KEEP)), False).to_numpy())

    def best_first(self, rows: Rows) -> Rows:
        """Sorts rows by their rank."""
        return rows[np.argsort(self.rank[rows])]

    def scored(self, rows: Rows) -> bool:
        """Whether there are such rows, and each has scores."""
        return bool(len(rows)) and bool(self.table["phash"].is_valid().to_numpy()[rows].all())

    def image(self, row: int) -> Path | bytes:
        """Returns the file of a row's image, or its bytes."""
        collection: Collection = self.sources[self.table["source"][row].as_py()].collection
        return collection.image(str(self.table["image"][row].as_py()))

    def embeddings(self, rows: Rows) -> Embeddings:
        """Reads the CLIP embeddings of some rows from the parts that hold them, each part once.

        One that is not finite, as half precision makes some, is all zeros: like no other, and faiss takes it.
        """
        import pyarrow.compute as pc

        order = np.argsort(rows)
        sorted_rows = rows[order]
        embeddings: Embeddings | None = None
        for part in self.parts:
            begin, end = np.searchsorted(sorted_rows, (part.first, part.first + part.rows))
            if begin == end:
                continue
            scores = self.sources[part.source].collection.read(Table.SCORES, part.name, ["key", "embedding"])
            keys = self.table["key"].slice(part.first, part.rows).take(sorted_rows[begin:end] - part.first)
            at = pc.index_in(keys.combine_chunks(), scores["key"].combine_chunks().cast(keys.type))
            values = scores["embedding"].combine_chunks().take(at).flatten()
            vectors = values.to_numpy(zero_copy_only=False).reshape(end - begin, -1)
            if embeddings is None:
                embeddings = np.empty((len(rows), vectors.shape[1]), dtype=np.float16)
            embeddings[order[begin:end]] = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0)
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
