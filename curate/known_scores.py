"""Finds scores that were computed before, so that no model is asked again what it has answered.

An embedding hangs on the image's content and the model, not on the file, the source or the text that the image came
with. So the recipe of a row of scores has two halves: one of the image and CLIP, and one of all else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.models.clip_config import clip_models
from dreamloom.base.stage import recipe
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.scores import SCORES
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.known_rows import find_known_rows, first_half


@dataclass(frozen=True)
class RowRecipes:
    """Recipes of rows of scores by a config."""

    of_image: str
    """What embeddings and values of images depend on, beside the image."""
    of_all: str
    """What the other scores depend on, beside the row."""

    def of(self, record: Mapping[str, Any]) -> str | None:
        """Returns the recipe of an image's row; None where its content is not known, as in records of old releases."""
        if not record.get("image_sha256"):
            return None
        return f"{self.of_image}-{record['image_sha256']}/{recipe(self.of_all, 1, {'text': record['text']})}"


def row_recipes(config: ScoreConfig, version: int, models: Mapping[str, str]) -> RowRecipes:
    """Returns the recipes of rows.

    Args:
        config: the score stage's.
        version: that of its code.
        models: fingerprints of all its models, and the versions of scores.
    """
    versions = {score.name: score.version for score in SCORES if score.of_image is not None}
    values = {"precision": config.precision, "scores": versions}
    return RowRecipes(
        recipe("images", version, values, (), clip_models(config)), recipe("rows", version, config, (), models)
    )


@dataclass(frozen=True)
class KnownScores:
    """Rows of scores that were computed before."""

    rows: pa.Table
    whole: Mapping[str, int]
    """Recipe → place in rows, of those that are as they are wanted."""
    images: Mapping[str, int]
    """Half of a recipe → place in rows, of those whose image was seen by the model."""

    def embeddings(self, places: Sequence[int]) -> NDArray[np.float16]:
        """Returns the embeddings [n, d] of rows."""
        values = self.rows["embedding"].combine_chunks().take(pa.array(places)).flatten()
        return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(places), -1)


def find_known_scores(collection: Collection, wanted: Sequence[str]) -> KnownScores:
    """Returns rows of scores with these recipes, or with the same first half."""
    rows = find_known_rows(collection, Table.SCORES, wanted)
    recipes = rows["recipe"].to_pylist()
    return KnownScores(
        rows,
        {each: place for place, each in enumerate(recipes)},
        {first_half(each): place for place, each in enumerate(recipes)},
    )
