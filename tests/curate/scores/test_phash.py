"""Our hash is imagehash's, and looks at what an image looks like."""

from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.images.near_duplicates import phash
from dreamloom.base.images.pixels import decode


def bits_apart(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


def test_it_is_imagehash_as_a_signed_integer(shared_data: Path) -> None:
    for path in sorted((shared_data / "coco" / "images").glob("*.jpg"))[:8]:
        image = decode(path)
        assert phash(image) & (2**64 - 1) == int(str(imagehash.phash(image)), 16)
        assert -(2**63) <= phash(image) < 2**63


@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from([1, 2, 16, 256]),
    st.sampled_from(["RGB", "L"]),
)
def test_it_is_imagehash_of_any_image(seed: int, size: tuple[int, int], shades: int, mode: str) -> None:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, shades, shape, dtype=np.uint8) * (255 // shades)
    image = Image.fromarray(pixels.astype(np.uint8))
    assert phash(image) & (2**64 - 1) == int(str(imagehash.phash(image)), 16)


@pytest.mark.parametrize("change", ["smaller", "brighter"])
def test_a_copy_is_near_and_another_photo_is_far(shared_data: Path, change: str) -> None:
    one, other = (decode(p) for p in sorted((shared_data / "coco" / "images").glob("*.jpg"))[:2])
    if change == "smaller":
        copy = one.resize((one.width // 2, one.height // 2), Image.Resampling.LANCZOS)
    else:
        copy = Image.fromarray((np.asarray(one) * 0.9 + 20).astype(np.uint8))
    assert bits_apart(phash(one), phash(copy)) <= 4
    assert bits_apart(phash(one), phash(other)) > 12
