"""Duplicates are those that comparing each image with each other one finds."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreamloom.base.images.near_duplicates import mirror_hashes
from dreamloom.curate.rules.dedupe import NONE, Likeness, Rows, exact_duplicates, near_duplicates
from dreamloom.curate.rules.nearest import Embeddings
from tests.base.images.test_near_duplicates import a_hash


def signed(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.uint64).view(np.int64)


def by_comparing_all(hashes: list[int], vectors: Embeddings, alike: Likeness) -> list[int]:
    def agree(one: int, other: int) -> bool:
        apart = (hashes[one] ^ hashes[other]).bit_count()
        if alike.mirrored:
            mirrored = int(mirror_hashes(np.array([hashes[one]], dtype=np.uint64))[0])
            apart = min(apart, (mirrored ^ hashes[other]).bit_count())
        return apart <= alike.bits and float(vectors[one].astype(np.float64) @ vectors[other]) >= alike.cosine

    repeats: list[int] = []
    for row in range(len(hashes)):
        agreeing = [earlier for earlier in range(row) if repeats[earlier] == NONE and agree(earlier, row)]
        repeats.append(agreeing[0] if agreeing else NONE)
    return repeats


KINDS = np.array([[1, 0, 0], [0.96, 0.28, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=np.float16)


@given(st.lists(st.tuples(a_hash, st.booleans(), st.integers(0, 3)), max_size=40), st.integers(0, 10), st.booleans())
def test_near_duplicates_are_those_found_by_comparing_all(
    rows: list[tuple[int, bool, int]], bits: int, mirrored: bool
) -> None:
    values = np.array([value for value, _, _ in rows], dtype=np.uint64)
    hashes = np.where([flip for _, flip, _ in rows], mirror_hashes(values), values).astype(np.uint64)
    vectors = KINDS[[kind for _, _, kind in rows]].reshape(len(rows), 3)
    alike = Likeness(bits, 0.9, mirrored)
    if mirrored and bits <= 4:
        return  # few bits and mirrored is asked for by nothing
    found = near_duplicates(hashes.view(np.int64), alike, lambda which: vectors[which])
    assert found.tolist() == by_comparing_all(hashes.tolist(), vectors, alike)


@given(st.lists(a_hash, max_size=20), st.randoms(use_true_random=False))
def test_the_order_decides_who_stays_and_nothing_else(hashes: list[int], random: Callable[..., int]) -> None:
    """Where all are as near to each other as any two of a kind, one of each kind stays, whatever the order."""
    kinds = [value & 1 for value in hashes]
    vectors = np.eye(2, dtype=np.float16)[kinds].reshape(len(kinds), 2)
    same = signed([7] * len(kinds))
    order = list(range(len(kinds)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for rows in (list(range(len(kinds))), order):
        arranged = vectors[rows]
        repeats = near_duplicates(same, Likeness(4, 0.9), arranged.__getitem__)
        stayed = [kinds[row] for row, repeated in zip(rows, repeats, strict=True) if repeated == NONE]
        assert sorted(stayed) == sorted(set(kinds))


def test_plain_images_of_other_colours_are_no_duplicates() -> None:
    """All plain images have one pHash, so only what CLIP makes of them can tell them apart."""
    colours = np.eye(4, dtype=np.float16)
    assert (near_duplicates(signed([1 << 63] * 4), Likeness(4, 0.94), colours.__getitem__) == NONE).all()


@given(
    st.lists(st.tuples(a_hash, st.integers(0, 3)), max_size=5),
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4))),
)
def test_a_closer_look_confirms_what_hashes_do_not(
    rows: list[tuple[int, int]], confirmed: set[tuple[int, int]]
) -> None:
    """Of so few images each is compared with each other one."""
    hashes = [value for value, _ in rows]
    vectors = KINDS[[kind for _, kind in rows]].reshape(len(rows), 3)
    asked: list[tuple[int, int]] = []

    def confirm(pairs: Rows) -> NDArray[np.bool_]:
        asked.extend((max(pair), min(pair)) for pair in pairs.tolist())
        return np.array([(max(pair), min(pair)) in confirmed for pair in pairs.tolist()], dtype=bool)

    repeats: list[int] = []
    for row in range(len(rows)):
        near = [
            earlier
            for earlier in range(row)
            if repeats[earlier] == NONE
            and float(vectors[row].astype(np.float64) @ vectors[earlier]) >= 0.9
            and ((hashes[row] ^ hashes[earlier]).bit_count() <= 4 or (row, earlier) in confirmed)
        ]
        repeats.append(near[0] if near else NONE)
    found = near_duplicates(signed(hashes), Likeness(4, 0.9), vectors.__getitem__, confirm=confirm)
    assert found.tolist() == repeats
    assert all((hashes[one] ^ hashes[other]).bit_count() > 4 for one, other in asked)


@pytest.mark.parametrize("is_part", [False, True])
def test_a_crowd_that_looks_alike_is_not_compared_pair_by_pair(is_part: bool) -> None:
    count, asked = 5000, 0
    hashes = np.random.default_rng(0).integers(-(2**63), 2**63, count, dtype=np.int64)

    def confirm(pairs: Rows) -> NDArray[np.bool_]:
        nonlocal asked
        asked += len(pairs)
        return np.full(len(pairs), is_part)

    ones = np.ones((count, 1), dtype=np.float16)
    repeats = near_duplicates(hashes, Likeness(4, 0.94), ones.__getitem__, confirm=confirm)
    assert 0 < asked <= 8 * count
    assert (repeats == NONE).sum() == (1 if is_part else count)


def test_embeddings_are_asked_for_only_where_hashes_are_near() -> None:
    asked: list[list[int]] = []

    def embeddings(rows: NDArray[np.int64]) -> Embeddings:
        asked.append(rows.tolist())
        return np.ones((len(rows), 1), dtype=np.float16)

    far = 0x5555_5555_5555_5555
    repeats = near_duplicates(signed([3, far, 1, 0x3333_0000_FFFF_0000]), Likeness(4, 0.9), embeddings)
    assert repeats.tolist() == [NONE, NONE, 0, NONE]
    assert asked == [[0, 2]]


def drawn(rows: int, copies: int) -> tuple[NDArray[np.int64], Embeddings]:
    """Images in 20 crowds that CLIP finds alike, the last ones copies of others, which only the hash tells."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 32))[rng.integers(0, 20, rows)] + 0.15 * rng.normal(size=(rows, 32))
    hashes = rng.integers(0, 2**63, rows, dtype=np.int64)
    copied = rng.integers(0, rows - copies, copies)
    vectors[-copies:] = vectors[copied] + 0.02 * rng.normal(size=(copies, 32))
    hashes[-copies:] = hashes[copied] ^ (1 << 7)
    return hashes, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_the_index_finds_what_comparing_all_finds() -> None:
    hashes, vectors = drawn(6000, 600)
    found = {
        exact: near_duplicates(hashes, Likeness(10, 0.94, True), vectors.__getitem__, exact) for exact in (0, 9999)
    }
    by_index, by_all = (found[exact] != NONE for exact in (0, 9999))
    assert by_all[-600:].mean() > 0.99 and not by_all[:-600].any()
    assert (by_index & by_all).sum() >= 0.97 * by_all.sum()
    assert not (by_index & ~by_all).any()
    assert (found[0] == found[9999])[by_index].all()


@pytest.mark.parametrize("copies", [True, False])
def test_one_hash_that_all_share_costs_no_square(copies: bool) -> None:
    """30,000 images of one hash, copies of one or none: each compared with each would be 450 million comparisons."""
    count = 30_000
    compared = 0

    class Counted(Likeness):
        def hashes_agree(self, one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.bool_]:
            nonlocal compared
            agree = super().hashes_agree(one, other)
            compared += agree.size
            return agree

    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float16) if not copies else np.ones((count, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    repeats = near_duplicates(np.zeros(count, dtype=np.int64), Counted(4, 0.99), vectors.__getitem__)
    assert compared < count * (1024 + 64)
    assert (repeats == NONE).sum() == 1 if copies else (repeats == NONE).sum() > 1000


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=20))
def test_exact_duplicates_point_to_the_first(digests: list[str | None]) -> None:
    repeats = exact_duplicates(pa.chunked_array([pa.array(digests, pa.large_string())]))
    for row, digest in enumerate(digests):
        first = NONE if digest is None or digests.index(digest) == row else digests.index(digest)
        assert repeats[row] == first
