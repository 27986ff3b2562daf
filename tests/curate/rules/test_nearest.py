"""A search looks at a bounded number of embeddings, however many there are and however alike they look."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from dreamloom.curate.rules.nearest import InvertedLists


def compared(vectors: NDArray[np.float16], asked: int) -> float:
    """Adds all vectors, and returns with how many of them one of the first is then compared."""
    index = InvertedLists(vectors)
    block = vectors.astype(np.float32)
    index.take(block)
    index.add(np.arange(len(block)))
    index.take(block[:asked])
    counted: Any = faiss.cvar
    counted.indexIVF_stats.reset()
    index.search(64)
    return float(counted.indexIVF_stats.ndis) / asked


def test_four_times_as_many_embeddings_are_hardly_more_to_compare_with() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 32))[rng.integers(0, 20, 40_000)] + 0.15 * rng.normal(size=(40_000, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    assert compared(vectors, 100) < 1.5 * compared(vectors[:10_000], 100)


def test_of_a_crowd_that_looks_the_same_not_all_are_compared() -> None:
    assert compared(np.ones((18_000, 1), dtype=np.float16), 5) < 17_000
