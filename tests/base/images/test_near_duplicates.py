"""Hashes that are near are found without comparing all, and a flipped image's hash without the image."""

from pathlib import Path

import imagehash
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageOps

from dreamloom.base.images.near_duplicates import close_pairs, mirror_hashes, phash
from dreamloom.base.images.pixels import decode


def flipped(value: int, places: list[int]) -> int:
    for place in places:
        value ^= 1 << place
    return value


a_hash = st.builds(  # values close to one of three, so that some are near and some are just too far
    flipped,
    st.sampled_from([0, 1 << 63, 0x0F0F_1234_5678_9ABC, 2**64 - 1]),
    st.lists(st.integers(0, 63), max_size=6),
)


@given(st.sets(a_hash, max_size=30), st.integers(0, 8))
def test_close_pairs_are_all_close_pairs(values: set[int], bits: int) -> None:
    array = np.array(sorted(values), dtype=np.uint64)
    expected = [
        [i, j]
        for i in range(len(array))
        for j in range(i + 1, len(array))
        if (int(array[i]) ^ int(array[j])).bit_count() <= bits
    ]
    assert close_pairs(array, bits).tolist() == expected


def test_a_crowd_of_near_hashes_has_pairs_for_all_and_not_all_pairs() -> None:
    values = np.arange(2**13, dtype=np.uint64)  # 34 million pairs
    pairs = close_pairs(values, 4)
    assert len(np.unique(pairs)) == len(values)
    assert len(pairs) <= 15 * 16 * len(values)
    assert (np.bitwise_count(values[pairs[:, 0]] ^ values[pairs[:, 1]]) <= 4).all()


@given(st.lists(a_hash, max_size=5))
def test_mirroring_twice_changes_nothing(values: list[int]) -> None:
    hashes = np.array(values, dtype=np.uint64)
    assert (mirror_hashes(mirror_hashes(hashes)) == hashes).all()
    assert (np.bitwise_count(mirror_hashes(hashes) ^ hashes) == 32).all()


def test_the_mirrored_hash_is_that_of_the_flipped_photo(shared_data: Path) -> None:
    """But for the few bits of coefficients between zero and the median, about which imagehash decides."""
    apart = []
    for path in sorted((shared_data / "coco" / "images").glob("*.jpg")):
        image = decode(path)
        expected = int(str(imagehash.phash(ImageOps.mirror(image))), 16)
        derived = mirror_hashes(np.array([phash(image)]).view(np.uint64))
        apart.append((int(derived[0]) ^ expected).bit_count())
    assert max(apart) <= 8
    assert np.mean(apart) < 4
