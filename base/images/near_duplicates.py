"""What makes two images look the same: the 64-bit perceptual hash, and which hashes differ in few bits."""

from itertools import combinations, pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Hashes = NDArray[np.uint64]
"""Perceptual hashes, their first bit highest."""

_SIDE = 32
"""Pixels of the square whose frequencies are looked at."""
_ODD_COLUMNS = np.uint64(0x5555_5555_5555_5555)
"""The bits of a hash that stand for odd horizontal frequencies: every second one of each row of eight."""
_SUCCESSORS = 16
"""Neighbours with which a hash is compared in each order. More agree in two bands only in crowds of alike hashes, where
each has some neighbour among these."""


def phash(image: Image.Image) -> int:
    """Computes imagehash's pHash of an image: signs of the 8 × 8 lowest frequencies of its DCT, about their median.

    It sees light and dark only: images that differ in color alone may have the same hash.

    Returns:
        The 64 bits, first bit highest, as a signed integer (two's complement), which is parquet's int64.
    """
    from scipy.fftpack import dct  # a third of a second

    pixels = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    lowest = dct(dct(pixels, axis=0), axis=1)[:8, :8].ravel()
    ordered = np.sort(lowest)
    bits = lowest > (ordered[31] + ordered[32]) / 2  # as numpy's median, which takes ten times as long
    return int(cast(np.int64, np.packbits(bits).view(">i8")[0]))


def mirror_hashes(hashes: Hashes) -> Hashes:
    """Computes the hashes of the images flipped left to right, without the images.

    Flipping negates the DCT's odd horizontal frequencies and leaves the others. So their bits are inverted, but for
    those between zero and the median, which is near zero: of 38 photos, 2 to 8 bits differ from the flipped image's.
    """
    return hashes ^ _ODD_COLUMNS


def close_pairs(values: Hashes, bits: int) -> NDArray[np.int64]:
    """Returns the pairs [m, 2] of indices of different values that differ in at most `bits` bits, sorted.

    Multi-index hashing (Norouzi, Punjani, Fleet 2012): cut into bits + 2 bands, two such values agree in at least two
    bands, so they are neighbours when sorted by these two. A million values take 15 sorts at 4 bits, not 5 × 10¹¹
    comparisons. Where more than 16 values agree in two bands, each is compared with 16 of them, so that the cost stays
    linear; of such a crowd some pairs are left out.
    """
    found = np.empty(0, dtype=np.int64)  # first × count + second
    edges = np.linspace(0, 64, bits + 3).astype(int)
    masks = [((1 << int(high)) - 1) ^ ((1 << int(low)) - 1) for low, high in pairwise(edges)]
    for mask, second_mask in combinations(masks, 2):
        both = np.uint64(mask | second_mask)
        order = np.lexsort((values, values & both))
        pairs = [found]
        sorted_values = values[order]
        banded = sorted_values & both
        start = np.arange(len(values))
        for step in range(1, _SUCCESSORS + 1):
            start = start[start + step < len(values)]
            start = start[banded[start] == banded[start + step]]
            if not len(start):
                break
            close = start[np.bitwise_count(sorted_values[start] ^ sorted_values[start + step]) <= bits]
            one, other = order[close], order[close + step]
            pairs.append(np.minimum(one, other) * len(values) + np.maximum(one, other))
        found = np.unique(np.concatenate(pairs))
    return np.stack(np.divmod(found, max(1, len(values))), axis=1)
