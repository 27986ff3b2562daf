"""What makes two images look the same: the 64-bit perceptual hash, and which hashes differ in few bits."""

from itertools import combinations, pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def phash(image: Image.Image) -> int:
    """Computes imagehash's pHash of an image: signs of the 8 × 8 lowest frequencies of its DCT, about their median.

    It sees light and dark only: images that differ in color alone may have the same hash.

    Returns:
        The 64 bits, first bit highest, as a signed integer (two's complement), which is parquet's int64.
    """
    import imagehash

    bits = imagehash.phash(image).hash.reshape(64)
    return int(cast(np.int64, np.packbits(bits).view(">i8")[0]))


def close_pairs(values: NDArray[np.uint64], bits: int) -> list[tuple[int, int]]:
    """Returns the pairs of indices of different values that differ in at most `bits` bits, sorted.

    Multi-index hashing (Norouzi, Punjani, Fleet 2012): cut into bits + 2 bands, two such values agree in at least two
    bands, so they are neighbours when sorted by these two. A million values take 15 sorts at 4 bits, not 5 × 10¹¹
    comparisons.
    """
    pairs_found: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, bits + 3).astype(int)
    masks = [((1 << int(high)) - 1) ^ ((1 << int(low)) - 1) for low, high in pairwise(edges)]
    for mask, second_mask in combinations(masks, 2):
        banded = values & np.uint64(mask | second_mask)
        order = np.argsort(banded, kind="stable")
        banded, sorted_values = banded[order], values[order]
        start, step = np.arange(len(values)), 1
        while len(start := start[start + step < len(values)]):
            start = start[banded[start] == banded[start + step]]
            close = start[np.bitwise_count(sorted_values[start] ^ sorted_values[start + step]) <= bits]
            pairs = np.sort(np.stack([order[close], order[close + step]], axis=1), axis=1)
            pairs_found.update(map(tuple, pairs.tolist()))
            step += 1
    return sorted(pairs_found)
