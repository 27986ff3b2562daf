"""Selects a number of images out of many by their CLIP embeddings. Pure functions of arrays.

- `select_variety` covers what there is. An image of a rare kind counts as much as many that look alike.
- `select_nearest` takes what is closest to the images that are taught: what is most at risk of being overwritten.
- `select_random` favours nothing. Of stored latents, a random choice kept more than one by similarity (Otani,
  arXiv 2509.10529).

`coverage` says how well a selection stands for all.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamloom.base.apportion import apportion
from dreamloom.curate.drawing import draw_order

Vectors = NDArray[np.float32]
"""Embeddings [n, d], L2-normalised."""
Selected = NDArray[np.int64]
"""Positions in what was selected from, in ascending order."""

_ITERATIONS = 10
_POINTS_PER_CENTROID = 256  # faiss's default; more hardly move a centroid
_SAMPLE = 20_000
_ONE_LEVEL = 256


def select_random(keys: Sequence[str], count: int, seed: int) -> Selected:
    """Selects the `count` keys with the lowest hash of seed and key, so that added or removed images change few."""
    order = sorted(range(len(keys)), key=lambda at: draw_order(seed, keys[at]))
    return np.array(sorted(order[:count]), dtype=np.int64)


def select_nearest(vectors: Vectors, targets: Vectors, count: int) -> Selected:
    """Selects the `count` vectors with the highest cosine to any target [m, d]; of equal ones, the first."""
    return np.sort(np.argsort(-_closeness(vectors, targets), kind="stable")[:count])


def select_variety(vectors: Vectors, count: int, seed: int) -> Selected:
    """Selects `count` vectors that stand for all of them.

    Starts from the vectors farthest from each other (k-center, Gonzalez 1985), so that each rare kind is there, moves
    these by spherical k-means to the middle of what they stand for, and takes the vector nearest to each. For more than
    256, k-means first makes about √count groups. Each group then gets a part of `count` in proportion to the sum of its
    distances, so that a crowd of images that look alike gets little.
    """
    if count <= _ONE_LEVEL:
        return np.sort(_nearest_members(vectors, count))
    kmeans = _kmeans(vectors.shape[1], isqrt(count), seed)
    kmeans.train(vectors)
    group = kmeans.index.search(vectors, 1)[1][:, 0]
    members = [np.flatnonzero(group == number) for number in np.unique(group)]
    spread = [Fraction(_spread(vectors[rows])) + Fraction(1, 10**6) for rows in members]
    quotas = apportion(min(count, len(vectors)), spread, at_most=[len(rows) for rows in members])
    chosen = [rows[_nearest_members(vectors[rows], k)] for rows, k in zip(members, quotas, strict=True) if k]
    return np.sort(np.concatenate(chosen))


def coverage(vectors: Vectors, selected: Selected, seed: int) -> float:
    """Returns the mean cosine of an image to the nearest selected one: 1 if each has a copy among them.

    Of more than 20,000 images, a sample is asked.
    """
    rows = np.arange(len(vectors))
    if len(rows) > _SAMPLE:
        rows = np.random.default_rng(seed).choice(rows, _SAMPLE, replace=False)
    return float(_closeness(vectors[rows], vectors[selected]).mean())


def _nearest_members(vectors: Vectors, count: int) -> Selected:
    """Returns positions of `count` different vectors, each the nearest of its cluster to the centroid."""
    if count >= len(vectors):
        return np.arange(len(vectors), dtype=np.int64)
    kmeans = _kmeans(vectors.shape[1], count, seed=0)  # nothing is left to chance: each cluster has its start
    kmeans.train(vectors, init_centroids=vectors[_farthest_first(vectors, count, [])])
    closeness, centroid = (found[:, 0] for found in kmeans.index.search(vectors, 1))
    order = np.lexsort((-closeness, centroid))
    nearest = order[np.unique(centroid[order], return_index=True)[1]]
    return _farthest_first(vectors, count, nearest.tolist())  # where two centroids came to share a vector


def _farthest_first(vectors: Vectors, count: int, chosen: list[int]) -> Selected:
    """Adds to the chosen positions, up to `count`, each time the one that is farthest from all of them."""
    first = vectors.mean(axis=0, keepdims=True)
    covered = _closeness(vectors, vectors[chosen] if chosen else first)
    covered[chosen] = np.inf
    while len(chosen) < count:
        chosen.append(int(covered.argmin()))
        covered = np.maximum(covered, vectors @ vectors[chosen[-1]])
        covered[chosen[-1]] = np.inf
    return np.array(chosen, dtype=np.int64)


def _kmeans(dimensions: int, count: int, seed: int) -> Any:
    import faiss  # takes half a second

    return faiss.Kmeans(
        dimensions,
        count,
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS_PER_CENTROID,
    )


def _closeness(vectors: Vectors, targets: Vectors) -> NDArray[np.float32]:
    """Returns each vector's highest cosine to a target."""
    import faiss

    found: NDArray[np.float32] = faiss.knn(vectors, targets, 1, metric=faiss.METRIC_INNER_PRODUCT)[0][:, 0]
    return found


def _spread(vectors: Vectors) -> float:
    """Returns the sum of the vectors' cosine distances to their mean direction."""
    return len(vectors) - float(np.linalg.norm(vectors.sum(axis=0, dtype=np.float64)))
