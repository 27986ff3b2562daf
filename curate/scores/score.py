"""What a score is: a column of the scores table, and how it is computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.models.clip import Clip
from dreamloom.curate.config import ScoreConfig

DECIMALS = 4
"""Decimals of a score that do not depend on how many images the model saw at once."""


@dataclass(frozen=True)
class Batch:
    """Images that are scored together."""

    records: Sequence[Mapping[str, Any]]
    """Key, image and text of each."""
    embeddings: NDArray[np.float32]
    """[n, d], L2-normalized, with the precision of the table: float16."""
    image_values: Sequence[Mapping[str, Any]]
    """Of each image: score name → result of its `of_image`."""


Compute = Callable[[Batch], pa.Array]
"""Computes the score of each image of a batch."""


@dataclass(frozen=True)
class ScoreModel:
    """A model that a score needs beside CLIP."""

    role: str
    """Its name in the metadata of scores, and in messages."""
    field: str
    """The field of ScoreConfig that names its file; null: the score is not computed."""


@dataclass(frozen=True)
class Score:
    """A column of the scores table."""

    name: str
    type: pa.DataType
    load: Callable[[ScoreConfig, Clip], Compute]
    """Loads what the score needs, and returns what computes it."""
    of_image: Callable[[Image.Image], Any] | None = None
    """Computes a value from the decoded image, in one of the decoding threads."""
    model: ScoreModel | None = None
    source: Callable[[Mapping[str, Any]], str] | None = None
    """Names what computed the score, given the stage's config; None: traces don't show this score."""
    version: int = 0
    """Raised when the score's code gives other values; 0: it is covered by the stage's VERSION."""


def image_score(name: str, type: pa.DataType, of_image: Callable[[Image.Image], Any], version: int) -> Score:
    """Returns a score that is computed from the decoded image alone."""

    def compute(batch: Batch) -> pa.Array:
        return pa.array([values[name] for values in batch.image_values], type)

    return Score(name, type, lambda config, clip: compute, of_image, source=lambda config: "", version=version)
