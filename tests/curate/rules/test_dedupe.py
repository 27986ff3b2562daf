"""Duplicates are those that comparing each image with each other one finds."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreamloom.curate.rules.dedupe import NONE, exact_duplicates, near_duplicates

Vectors = NDArray[np.float32]


def flipped(value: int, places: list[int]) -> int:
    for place in places:
        value ^= 1 << place
    return value


a_hash = st.builds(  # values close to one of three, so that some are near and some are just too far
    flipped,
    st.sampled_from([0, 1 << 63, 0x0F0F_1234_5678_9ABC, 2**64 - 1]),
    st.lists(st.integers(0, 63), max_size=6),
)


def signed(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.uint64).view(np.int64)


def by_comparing_all(hashes: list[int], vectors: Vectors, bits: int, cosine: float) -> list[int]:
    repeats: list[int] = []
    for row, value in enumerate(hashes):
        agreeing = [
            earlier
            for earlier in range(row)
            if repeats[earlier] == NONE
            and (hashes[earlier] ^ value).bit_count() <= bits
            and float(vectors[earlier].astype(np.float64) @ vectors[row]) >= cosine
        ]
        repeats.append(agreeing[0] if agreeing else NONE)
    return repeats


@given(st.lists(st.tuples(a_hash, st.integers(0, 3)), max_size=40), st.integers(0, 6))
def test_near_duplicates_are_those_found_by_comparing_all(rows: list[tuple[int, int]], bits: int) -> None:
    hashes = [value for value, _ in rows]
    kinds = np.array([[1, 0, 0], [0.96, 0.28, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=np.float32)
    vectors = kinds[[kind for _, kind in rows]].reshape(len(rows), 3)
    found = near_duplicates(signed(hashes), bits, 0.9, lambda which: vectors[which])
    assert found.tolist() == by_comparing_all(hashes, vectors, bits, 0.9)


@given(st.lists(a_hash, max_size=20), st.randoms(use_true_random=False))
def test_the_order_decides_who_stays_and_nothing_else(hashes: list[int], random: Callable[..., int]) -> None:
    """Where all are as near to each other as any two of a kind, one of each kind stays, whatever the order."""
    kinds = [value & 1 for value in hashes]
    vectors = np.eye(2, dtype=np.float32)[kinds].reshape(len(kinds), 2)
    same = signed([7] * len(kinds))
    order = list(range(len(kinds)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for rows in (list(range(len(kinds))), order):
        arranged = vectors[rows]
        repeats = near_duplicates(same, 4, 0.9, lambda which, a=arranged: a[which])  # type: ignore[misc]
        stayed = [kinds[row] for row, repeated in zip(rows, repeats, strict=True) if repeated == NONE]
        assert sorted(stayed) == sorted(set(kinds))


def test_plain_images_of_other_colours_are_no_duplicates() -> None:
    """All plain images have one pHash, so only what CLIP makes of them can tell them apart."""
    colours = np.eye(4, dtype=np.float32)
    assert (near_duplicates(signed([1 << 63] * 4), 4, 0.94, lambda which: colours[which]) == NONE).all()


def test_embeddings_are_asked_for_only_where_hashes_are_near() -> None:
    asked: list[list[int]] = []

    def embeddings(rows: NDArray[np.int64]) -> Vectors:
        asked.append(rows.tolist())
        return np.ones((len(rows), 1), dtype=np.float32)

    far = 0x5555_5555_5555_5555
    repeats = near_duplicates(signed([3, far, 1, 0x3333_0000_FFFF_0000]), 4, 0.9, embeddings)
    assert repeats.tolist() == [NONE, NONE, 0, NONE]
    assert asked == [[0, 2]]


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=20))
def test_exact_duplicates_point_to_the_first(digests: list[str | None]) -> None:
    repeats = exact_duplicates(digests)
    for row, digest in enumerate(digests):
        first = NONE if digest is None or digests.index(digest) == row else digests.index(digest)
        assert repeats[row] == first
