"""The 64-bit perceptual hash: images that look alike have hashes that differ in few bits."""

from typing import cast

import numpy as np
import pyarrow as pa
from PIL import Image

from dreamloom.curate.scores.score import image_score


def phash(image: Image.Image) -> int:
    """Computes imagehash's pHash of an image: signs of the 8 × 8 lowest frequencies of its DCT, about their median.

    It sees light and dark only: images that differ in color alone may have the same hash.

    Returns:
        The 64 bits, first bit highest, as a signed integer (two's complement), which is parquet's int64.
    """
    import imagehash

    bits = imagehash.phash(image).hash.reshape(64)
    return int(cast(np.int64, np.packbits(bits).view(">i8")[0]))


PHASH = image_score("phash", pa.int64(), phash, version=0)
