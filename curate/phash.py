"""The 64-bit perceptual hash: images that look alike have hashes that differ in few bits."""

from typing import cast

import numpy as np
from PIL import Image


def phash(picture: Image.Image) -> int:
    """imagehash's pHash of a decoded image: signs of the 8 × 8 lowest frequencies of its DCT, around their median.

    It sees light and dark only: two images that differ in colour may have one hash.

    Returns:
        the 64 bits, first bit highest, as a signed integer (two's complement), as parquet's int64 has it.
    """
    import imagehash

    bits = imagehash.phash(picture).hash.reshape(64)
    return int(cast(np.int64, np.packbits(bits).view(">i8")[0]))
