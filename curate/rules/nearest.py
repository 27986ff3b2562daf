"""Finds, for embeddings, those of an index that are nearest by cosine: among all of it, or through inverted lists.

The lists (IVF) hold the embeddings' strongest 64 dimensions. Their number grows with that of the embeddings, and the
list of an embedding is found through lists of lists, so that a search costs nearly the same among a million as among
ten thousand. Centroids are embeddings themselves, drawn at random: the lists are then of about one size, also where
most images are of a few kinds, while k-means gives a kind one centroid that all of them are nearest to.
"""

from math import isqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float16]
"""L2-normalised [n, d], as the scores tables have them."""
Block = NDArray[np.float32]
"""Some of them [m, d]."""
Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Of each row of a block, the cosines [m, k] of the nearest, and their places in the index; -1 where there are less."""

_DIMENSIONS = 64
_SAMPLE = 4096
"""Embeddings whose strongest dimensions are taken."""
_LIST_ROWS = 64
"""Mean length of a list."""
_LISTS_SEARCHED = 24
"""bench/duplicates.py tells what of all copies is found; of a million, 98.3 %."""
_GROUPS_SEARCHED = 16
"""Lists of lists that are looked at."""
_MAX_CODES = 16_384
"""Embeddings with which one is compared at most: where all look the same, they are all in one list."""
_SLACK = 0.01
"""By how much half precision may make a cosine seem smaller than it is."""


class Nearest(Protocol):
    """An index of embeddings, that are looked for and added block by block."""

    is_exact: bool
    """Whether cosines are those of the embeddings; else these are no larger than what `search` returns."""

    def take(self, block: Block) -> None:
        """Takes the next block in hand."""

    def search(self, count: int) -> Found:
        """Returns, for the block, the nearest of the index, nearest first."""

    def add(self, rows: NDArray[np.int64]) -> None:
        """Adds rows of the block, which come to stand behind what is there."""


class AllCompared:
    """Compares with all of the index."""

    is_exact = True

    def __init__(self, width: int) -> None:
        """Makes an empty index of embeddings of so many numbers."""
        import faiss  # takes half a second

        self._index = faiss.IndexFlatIP(width)

    def take(self, block: Block) -> None:
        """Takes the next block in hand."""
        self._block = block

    def search(self, count: int) -> Found:
        """Returns the nearest by cosine."""
        cosines, places = self._index.search(self._block, count)
        return cosines, places

    def add(self, rows: NDArray[np.int64]) -> None:
        """Adds rows of the block."""
        self._index.add(self._block[rows])


class InvertedLists:
    """Compares with those of the nearest lists."""

    is_exact = False

    def __init__(self, vectors: Embeddings) -> None:
        """Makes an empty index for these embeddings."""
        import faiss

        rng = np.random.default_rng(0)
        self._projection = _strongest_dimensions(_draw(rng, vectors, _SAMPLE))
        centroids = _draw(rng, vectors, max(1, len(vectors) // _LIST_ROWS)) @ self._projection
        dimensions, kind = centroids.shape[1], faiss.ScalarQuantizer.QT_fp16
        self._quantizer = _lists_of_lists(centroids)
        self._unused = faiss.IndexFlatL2(dimensions)  # faiss wants one; ours is asked once for search and add
        self._lists: Any = faiss.IndexIVFScalarQuantizer(
            self._unused, dimensions, len(centroids), kind, faiss.METRIC_L2, False
        )
        self._lists.is_trained = True  # half precision has nothing to learn
        self._lists.nprobe, self._lists.max_codes = min(_LISTS_SEARCHED, len(centroids)), _MAX_CODES

    def take(self, block: Block) -> None:
        """Takes the next block in hand."""
        self._block = block @ self._projection
        self._squares, self._nearest = self._quantizer.search(self._block, self._lists.nprobe)

    def search(self, count: int) -> Found:
        """Returns the nearest by their strongest dimensions."""
        squares, places = self._lists.search_preassigned(self._block, count, self._nearest, self._squares)
        return np.where(places < 0, -np.inf, 1 + _SLACK - squares / 2).astype(np.float32), places

    def add(self, rows: NDArray[np.int64]) -> None:
        """Adds rows of the block."""
        from faiss.contrib.ivf_tools import add_preassigned

        add_preassigned(self._lists, self._block[rows], np.ascontiguousarray(self._nearest[rows, 0]))


def _draw(rng: "np.random.Generator", vectors: Embeddings, count: int) -> Block:
    return vectors[np.sort(rng.choice(len(vectors), min(len(vectors), count), replace=False))].astype(np.float32)


def _strongest_dimensions(vectors: Block) -> Block:
    """Returns the orthonormal projection [d, 64] that keeps most of these vectors' lengths."""
    directions: Block = np.linalg.eigh(vectors.T @ vectors)[1][:, -_DIMENSIONS:]
    return np.ascontiguousarray(directions)


def _lists_of_lists(centroids: Block) -> Any:
    """Returns what finds the centroids nearest to a vector, looking at about 8 √n of n."""
    import faiss

    coarse = faiss.IndexFlatL2(centroids.shape[1])
    lists = min(len(centroids), isqrt(_GROUPS_SEARCHED * len(centroids)))  # as many as are in those searched
    quantizer = faiss.IndexIVFFlat(coarse, centroids.shape[1], lists)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.nprobe = _GROUPS_SEARCHED
    quantizer.train(centroids)
    quantizer.add(centroids)
    return quantizer
