"""Finds images that repeat a better one: the same bytes, or the same image in other bytes. Pure functions of arrays.

Rows come best first (dreamloom.curate.rules.priority); of rows that repeat each other, the first stays.

Near duplicates agree in CLIP embedding and in pHash. CLIP alone takes two photos of one kind of thing for copies. The
hash alone is the same for plain images of any color, and for one drawing in red and in blue. Where CLIP alone finds two
images alike, a closer look at a few such pairs of a row may confirm it (dreamloom.curate.rules.crops).

Where only near hashes count, rows that no chain of these connects decide nothing about each other: each group is looked
at by itself, so the same rows are found whatever else there is. In a small group, all pairs are compared.

In a crowd, a row is compared with those that stay, not with all, so a crowd of copies costs as much as it has images.
Up to 8,192 rows the nearest are found by comparing with all that stay; more are found through inverted lists
(dreamloom.curate.rules.nearest).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.images.copies import components
from dreamloom.base.images.near_duplicates import Hashes, close_pairs, mirror_hashes
from dreamloom.curate.rules.nearest import AllCompared, Embeddings, InvertedLists, Nearest

Rows = NDArray[np.int64]
Confirm = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Returns of each pair of rows [m, 2] whether they repeat each other."""
NONE = -1
"""Stands for the repeated row of a row that repeats none."""

_EXACT = 8_192
_BLOCK = 1024
_NEAREST = 64
"""Rows that stay, nearest by cosine, or by what the lists know of it, whose hashes are looked at."""
_LOOKED_AT = 4
"""Rows, nearest by cosine, with which a row is compared closely: so many of earlier blocks, and as many of its own."""
_PAIRS_AT_ONCE = 8192
FEW_BITS = 4
"""Up to so many bits, pairs of near hashes are found by the hashes alone, and only their embeddings are read."""
_CROWD = 64
"""Rows of a group from which on not all pairs are compared."""


@dataclass(frozen=True)
class Likeness:
    """When two images count as the same."""

    bits: int
    """Maximum bits in which their pHashes differ."""
    cosine: float
    """Minimum cosine of their CLIP embeddings."""
    mirrored: bool = False
    """Whether one may be the other flipped left to right, by its hash."""

    def hashes_agree(self, one: Hashes, other: Hashes) -> NDArray[np.bool_]:
        """Compares hashes, which are broadcast."""
        distance = np.bitwise_count(one ^ other)
        if self.mirrored:
            distance = np.minimum(distance, np.bitwise_count(mirror_hashes(one) ^ other))
        return np.asarray(distance <= self.bits)


def exact_duplicates(digests: pa.ChunkedArray) -> Rows:
    """Returns for each row the first row with the same digest, or NONE; a row without digest repeats none."""
    codes = digests.combine_chunks().dictionary_encode().indices.fill_null(NONE).to_numpy(zero_copy_only=False)
    _, first, of_row = np.unique(codes, return_index=True, return_inverse=True)
    repeated = first[of_row]
    return np.where((codes == NONE) | (repeated == np.arange(len(codes))), NONE, repeated).astype(np.int64)


def near_duplicates(
    hashes: NDArray[np.int64],
    alike: Likeness,
    embeddings: Callable[[Rows], Embeddings],
    exact: int = _EXACT,
    confirm: Confirm | None = None,
) -> Rows:
    """Returns for each row an earlier row that stays and that it nearly repeats, or NONE: then it stays.

    Of several such rows among the 64 that are nearest by cosine, it is the first.

    Args:
        hashes: 64-bit perceptual hashes [n], as signed integers.
        alike: when two rows count as the same.
        embeddings: Returns the embeddings of some rows; called once at most.
        exact: Up to so many rows, all that stay are searched; beyond, the lists nearest to a row are.
        confirm: Tells which pairs [m, 2] of rows whose cosine is high enough repeat each other, whatever their hashes;
            asked about eight pairs a row at most. None: the hashes decide.
    """
    unsigned = hashes.view(np.uint64)
    repeats = np.full(len(hashes), NONE, dtype=np.int64)
    if alike.bits > FEW_BITS or confirm is not None:
        return _repeats(embeddings(np.arange(len(hashes))), unsigned, alike, exact, confirm) if len(hashes) else repeats
    asked, group = _with_company(unsigned, alike.bits)
    if len(asked):
        found = _repeats_in_groups(embeddings(asked), unsigned[asked], group, alike, exact)
        repeats[asked] = np.where(found == NONE, NONE, asked[found])
    return repeats


def _with_company(hashes: Hashes, bits: int) -> tuple[Rows, Rows]:
    """Returns the rows whose hash is near another row's, and for each the number of its group."""
    values, of_row = np.unique(hashes, return_inverse=True)
    pairs = close_pairs(values, bits)
    crowded = np.bincount(of_row, minlength=len(values)) > 1
    crowded[pairs.ravel()] = True
    asked = np.flatnonzero(crowded[of_row])
    return asked, components(len(values), [pairs])[of_row[asked]]


def _repeats_in_groups(vectors: Embeddings, hashes: Hashes, group: Rows, alike: Likeness, exact: int) -> Rows:
    """Finds what rows repeat within their groups: in all pairs of those of small ones."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=NONE))
    sizes = np.diff(starts, append=len(order))
    repeats = np.full(len(group), NONE, dtype=np.int64)
    for start, size in zip(starts[sizes > _CROWD].tolist(), sizes[sizes > _CROWD].tolist(), strict=True):
        rows = order[start : start + size]
        found = _repeats(vectors[rows], hashes[rows], alike, exact, None)
        repeats[rows] = np.where(found == NONE, NONE, rows[found])
    small = order[np.repeat(sizes <= _CROWD, sizes)]
    for earlier, later in _agreeing_pairs(vectors, hashes, small, group[small], alike).tolist():
        if repeats[earlier] == NONE and repeats[later] == NONE:
            repeats[later] = earlier
    return repeats


def _agreeing_pairs(vectors: Embeddings, hashes: Hashes, rows: Rows, group: Rows, alike: Likeness) -> NDArray[np.int64]:
    """Returns the pairs [m, 2] of rows of one group that agree, by the later and then by the earlier.

    Args:
        vectors: of all rows.
        hashes: of all rows.
        rows: those to compare, group by group and in order.
        group: of these.
        alike: when two rows count as the same.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for apart in range(1, _CROWD):
        one, other = rows[:-apart], rows[apart:]
        of_one_group = group[:-apart] == group[apart:]
        if not of_one_group.any():
            break
        near = of_one_group & alike.hashes_agree(hashes[one], hashes[other])
        found.append(np.stack([one[near], other[near]], axis=1))
    pairs = np.concatenate(found)
    is_near = np.zeros(len(pairs), dtype=bool)
    for first in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = slice(first, first + _PAIRS_AT_ONCE)
        sides = (vectors[pairs[some, side]].astype(np.float32) for side in (0, 1))
        is_near[some] = np.einsum("ij,ij->i", *sides) >= alike.cosine
    pairs = pairs[is_near]
    return pairs[np.lexsort(pairs.T)]


def _repeats(vectors: Embeddings, hashes: Hashes, alike: Likeness, exact: int, confirm: Confirm | None) -> Rows:
    index: Nearest = AllCompared(vectors.shape[1]) if len(vectors) <= exact else InvertedLists(vectors)
    repeats = np.full(len(vectors), NONE, dtype=np.int64)
    stayed = np.empty(0, dtype=np.int64)
    for first in range(0, len(vectors), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(vectors)))
        block = vectors[rows].astype(np.float32)
        index.take(block)
        if len(stayed):
            cosines, places = index.search(min(_NEAREST, len(stayed)))
            near = stayed[places]  # where less is found, a place is -1 and its cosine is lower than any
            is_open = cosines >= alike.cosine
            agree = is_open & alike.hashes_agree(hashes[rows][:, None], hashes[near])
            if not index.is_exact:
                cosines = _cosines(block, vectors, near, is_open if confirm else agree)
            is_near = cosines >= alike.cosine
            agree &= is_near
            if confirm:
                is_open = is_near & ~agree.any(axis=1, keepdims=True)
                agree |= _confirmed_of_nearest(confirm, rows, near, cosines, is_open)
            earliest = np.where(agree, near, len(vectors)).min(axis=1)
            repeats[rows] = np.where(agree.any(axis=1), earliest, NONE)
        new = rows[repeats[rows] == NONE]
        repeats[new] = _repeats_within(block[new - first], hashes[new], alike, new, confirm)
        new = new[repeats[new] == NONE]
        index.add(new - first)
        stayed = np.concatenate([stayed, new])
    return repeats


def _cosines(
    block: NDArray[np.float32], vectors: Embeddings, near: Rows, asked: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Computes the cosines of the rows of a block to some others [n, k], those that are asked for; else -1."""
    cosines = np.full(near.shape, -1, dtype=np.float32)
    one, other = np.nonzero(asked)
    for first in range(0, len(one), _PAIRS_AT_ONCE):
        pairs = slice(first, first + _PAIRS_AT_ONCE)
        of_others = vectors[near[one[pairs], other[pairs]]].astype(np.float32)
        cosines[one[pairs], other[pairs]] = np.einsum("ij,ij->i", block[one[pairs]], of_others)
    return cosines


def _repeats_within(
    vectors: NDArray[np.float32], hashes: Hashes, alike: Likeness, rows: Rows, confirm: Confirm | None
) -> Rows:
    """Compares the rows of a block with each other."""
    cosines = vectors @ vectors.T
    is_near = np.tril(cosines >= alike.cosine, -1)
    agree = is_near & alike.hashes_agree(hashes[:, None], hashes)
    if confirm:
        others = np.broadcast_to(rows, cosines.shape)
        agree |= _confirmed_of_nearest(confirm, rows, others, cosines, is_near & ~agree)
    repeats = np.full(len(rows), NONE, dtype=np.int64)
    for place in np.flatnonzero(agree.any(axis=1)):
        earlier = np.flatnonzero(agree[place] & (repeats == NONE))
        if len(earlier):
            repeats[place] = rows[earlier[0]]
    return repeats


def _confirmed_of_nearest(
    confirm: Confirm, rows: Rows, others: Rows, cosines: NDArray[np.float32], is_open: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Compares rows [n] closely with the nearest of the others [n, k] that are open."""
    nearest = np.argsort(np.where(is_open, -cosines, np.inf), axis=1, kind="stable")[:, :_LOOKED_AT]
    asked = np.take_along_axis(is_open, nearest, axis=1)
    row, _ = np.nonzero(asked)
    of_nearest = np.zeros_like(asked)
    of_nearest[asked] = confirm(np.stack([rows[row], np.take_along_axis(others, nearest, axis=1)[asked]], axis=1))
    found = np.zeros_like(is_open)
    np.put_along_axis(found, nearest, of_nearest, axis=1)
    return found
