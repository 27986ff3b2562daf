"""A selection has the size asked for, covers what is rare, and finds what is near."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreamloom.curate.rules.selection import coverage, select_nearest, select_random, select_variety

Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.float64]) -> Vectors:
    normalised: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def around(centres: Vectors, counts: list[int], width: float, seed: int) -> Vectors:
    """Vectors that scatter around centres: counts[i] of them around the i-th."""
    rows = np.repeat(centres, counts, axis=0)
    return unit(rows + width * np.random.default_rng(seed).normal(size=rows.shape))


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 6), st.integers(0, 3))
def test_so_many_different_ones_are_selected_and_always_the_same(n: int, count: int, kinds: int, seed: int) -> None:
    """Also where many vectors are equal, so that centroids fall together."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(kinds, 8)))[rng.integers(0, kinds, n)]
    for selected in (
        select_variety(vectors, count, seed),
        select_nearest(vectors, vectors[:1], count),
        select_random([f"k{i}" for i in range(n)], count, seed),
    ):
        assert sorted(set(selected.tolist())) == selected.tolist()
        assert len(selected) == min(n, count)
        assert not len(selected) or (selected[0] >= 0 and selected[-1] < n)
    assert np.array_equal(select_variety(vectors, count, seed), select_variety(vectors, count, seed))


@pytest.mark.parametrize("count", [30, 300])
def test_variety_takes_each_rare_kind_and_little_of_a_crowd(count: int) -> None:
    centres = unit(np.random.default_rng(0).normal(size=(25, 64)))
    vectors = around(centres, [2000] + [3] * 24, 0.01, seed=1)
    selected = select_variety(vectors, count, 0)
    kinds = np.repeat(np.arange(25), [2000] + [3] * 24)[selected]
    assert set(kinds.tolist()) == set(range(25))


@given(st.integers(0, 20))
def test_variety_covers_better_than_chance(seed: int) -> None:
    centres = unit(np.random.default_rng(seed).normal(size=(40, 32)))
    vectors = around(centres, [200] * 4 + [10] * 36, 0.05, seed)
    varied = coverage(vectors, select_variety(vectors, 40, seed), seed)
    chance = coverage(vectors, select_random([str(i) for i in range(len(vectors))], 40, seed), seed)
    assert varied > chance
    assert coverage(vectors, np.arange(len(vectors)), seed) == pytest.approx(1, abs=1e-5)


def test_the_nearest_are_those_that_comparing_all_finds() -> None:
    rng = np.random.default_rng(3)
    vectors, targets = unit(rng.normal(size=(500, 16))), unit(rng.normal(size=(7, 16)))
    closest = (vectors @ targets.T).max(axis=1)
    assert set(select_nearest(vectors, targets, 50).tolist()) == set(np.argsort(-closest)[:50].tolist())


def test_a_random_selection_hardly_changes_with_the_images() -> None:
    keys = [f"k{i}" for i in range(100)]
    before = {keys[i] for i in select_random(keys, 20, 5)}
    after = {[*keys, "new"][i] for i in select_random([*keys, "new"], 20, 5)}
    assert len(before - after) <= 1
    assert before != {keys[i] for i in select_random(keys, 20, 6)}
