"""Finds images that repeat an earlier one: the same bytes, or the same image in other bytes. Pure functions of arrays.

Rows come in order of priority; of rows that repeat each other, the first stays.

pHash proposes, CLIP confirms. The hash sees light and dark at 8 × 8: it finds copies that were shrunk, compressed or
brightened, but is the same for plain images of any color, and for one drawing in red and in blue. So two images are
near duplicates if their hashes differ in few bits and their embeddings agree as well.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dreamloom.base.near_duplicates import close_pairs

Rows = NDArray[np.int64]
NONE = -1
"""Stands for the repeated row of a row that repeats none."""


def exact_duplicates(digests: Sequence[str | None]) -> Rows:
    """Returns for each row the first row with the same digest, or NONE; a row without digest repeats none."""
    first: dict[str, int] = {}
    repeats = np.full(len(digests), NONE, dtype=np.int64)
    for row, digest in enumerate(digests):
        if digest is not None and (earlier := first.setdefault(digest, row)) != row:
            repeats[row] = earlier
    return repeats


def near_duplicates(
    hashes: NDArray[np.int64], bits: int, cosine: float, embeddings: Callable[[Rows], NDArray[np.float32]]
) -> Rows:
    """Returns for each row the first earlier row that stays and that it nearly repeats, or NONE: then it stays.

    Args:
        hashes: 64-bit perceptual hashes [n], as signed integers.
        bits: Maximum bits in which the hashes of near duplicates differ.
        cosine: Minimum cosine of their embeddings.
        embeddings: Returns the L2-normalized embeddings [m, d] of m rows; called once, for the rows whose hash is near
            another's.
    """
    values, of_row = np.unique(hashes.view(np.uint64), return_inverse=True)
    near = _neighbours(values, bits)
    rows_of: dict[int, list[int]] = {}
    crowded = np.bincount(of_row, minlength=len(values)) > 1
    crowded[list(near)] = True
    company = np.flatnonzero(crowded[of_row])
    repeats = np.full(len(hashes), NONE, dtype=np.int64)
    if not len(company):
        return repeats
    vectors = embeddings(company)
    place = {int(row): at for at, row in enumerate(company)}
    for row in company.tolist():
        value = int(of_row[row])
        stayed = sorted(earlier for v in (value, *near.get(value, ())) for earlier in rows_of.get(v, ()))
        if stayed:
            before = vectors[[place[earlier] for earlier in stayed]].astype(np.float64)
            agree = (before * vectors[place[row]]).sum(axis=1) >= cosine
            if agree.any():
                repeats[row] = stayed[int(agree.argmax())]
                continue
        rows_of.setdefault(value, []).append(row)
    return repeats


def _neighbours(values: NDArray[np.uint64], bits: int) -> dict[int, list[int]]:
    near: dict[int, list[int]] = {}
    for first, second in close_pairs(values, bits):
        near.setdefault(first, []).append(second)
        near.setdefault(second, []).append(first)
    return near
