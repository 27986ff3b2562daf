"""The rule that keeps at most so many images of each source of ground truth, and selects which.

What a decision keeps counts towards the maximum, and is not selected from.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamloom.base.errors import UserError
from dreamloom.curate.config import ChooseConfig, Selection
from dreamloom.curate.rules import selection
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.rule import Images, Rule
from dreamloom.curate.source import Role
from dreamloom.scrape.collection import Choice

_log = logging.getLogger(__name__)


def _find(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    assert config.max_ground_truth is not None
    number_of = images.table["source"].to_numpy()
    found: dict[int, str] = {}
    is_kept = images.is_kept
    for number, source in enumerate(images.sources):
        of_source = rows[number_of[rows] == number]
        free = of_source[~is_kept[of_source]]
        count = max(0, config.max_ground_truth - (len(of_source) - len(free)))
        if source.role is Role.GROUND_TRUTH and len(free) > count:
            selected = free[_select(images, free, count, source.name, config)] if count else free[:0]
            surplus = np.setdiff1d(free, selected, assume_unique=True)
            found |= dict.fromkeys(surplus.tolist(), f"more than {config.max_ground_truth}, by {config.select_by}")
    return found


def _select(images: Images, rows: Rows, count: int, name: str, config: ChooseConfig) -> selection.Selected:
    """Returns positions in `rows`, and logs how well they cover the source."""
    seed = config.select_seed
    is_random = config.select_by is Selection.RANDOM
    at_random = selection.select_random(images.table["key"].take(rows).to_pylist(), count, seed)
    if not images.scored(rows):
        if is_random:
            return at_random
        raise UserError(f"select_by: {config.select_by} needs scores, and {name} has none; run score, or set random.")
    vectors = images.embeddings(rows).astype(np.float32)
    selected = {
        Selection.RANDOM: lambda: at_random,
        Selection.VARIETY: lambda: selection.select_variety(vectors, count, seed),
        Selection.NEAREST: lambda: _nearest(images, vectors, count),
        Selection.MIX: lambda: _mix(images, vectors, count, seed),
    }[config.select_by]()
    covered = selection.coverage(vectors, selected, seed)
    covered_at_random = covered if is_random else selection.coverage(vectors, at_random, seed)
    _log.info(
        "%s: %d of %d images selected by %s; coverage %.3f (mean CLIP cosine of each to the nearest selected; "
        "at random %.3f)",
        *(name, len(selected), len(rows), config.select_by, covered, covered_at_random),
    )
    return selected


def _nearest(images: Images, vectors: selection.Vectors, count: int) -> selection.Selected:
    is_training = np.array([source.role is Role.TRAINING for source in images.sources])
    taught = np.flatnonzero(is_training[images.table["source"].to_numpy()])
    if not images.scored(taught):
        raise UserError(
            "select_by: nearest needs training images that are scored, as it looks for what is like them; run score, "
            "or set select_by to random or variety."
        )
    return selection.select_nearest(vectors, images.embeddings(taught).astype(np.float32), count)


def _mix(images: Images, vectors: selection.Vectors, count: int, seed: int) -> selection.Selected:
    """Selects half by nearness, and the other half by variety among what is left."""
    nearest = _nearest(images, vectors, count // 2)
    others = np.setdiff1d(np.arange(len(vectors)), nearest, assume_unique=True)
    varied = others[selection.select_variety(vectors[others], count - len(nearest), seed)]
    return np.sort(np.concatenate([nearest, varied]))


def _explain(config: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"one of at most {config['max_ground_truth']} images of its source, selected by {config['select_by']}"


SURPLUS = Rule(Choice.SURPLUS, _find, _explain, "max_ground_truth", ground_truth_only=True)
