"""Tells whether one image shows a part of another, by their pixels: grey, small, and at several scales.

A perceptual hash is of the whole image, so it says nothing of a part. Where CLIP finds two images alike and their
hashes differ, one is laid over the other in all places (normalized cross-correlation, Lewis 1995).
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.images.pixels import ImageError, decode
from dreamloom.base.threads import map_ordered

Grey = NDArray[np.float32]
"""A small grey image [height, width], 0 to 255."""
Pairs = NDArray[np.int64]
"""Pairs of rows [m, 2]."""

_SIDE = 64
"""Pixels of the shorter side at which two images are compared."""
_MAX_RATIO = 4
"""Of two sides of an image; a longer strip is compared with none."""
_SCALES = np.linspace(0.70, 1.0, 16)
"""Sizes at which an image is looked for in the other, as shares of the other's size."""
_ALIKE = 0.85
"""Minimum correlation of an image and the place in the other that looks most like it. Measured by bench/duplicates.py
on 38 photos of COCO: crops of 20 % reach it, and no two photos do."""
_DETAIL_ALIKE = 0.4
"""Minimum correlation of their details there, which tells a part from a sky or a wall that is as bright by chance. On
the same photos it is 0.7 or more for parts, and less than 0.15 elsewhere."""
_DETAIL_PIXELS = 2.0
"""What a blur of so many pixels (its standard deviation) takes away is detail."""
_CACHED = 16_384
"""Small images in memory at once: 90 MB of photos."""
_THREADS = 4


def shrink(image: Image.Image, side: int = _SIDE) -> Grey | None:
    """Shrinks an image to grey pixels whose shorter side is `side`; None: it is too long a strip to be compared."""
    if max(image.size) > _MAX_RATIO * min(image.size):
        return None
    scale = side / min(image.size)
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32)


def is_part(one: Grey, other: Grey) -> bool:
    """Whether one of two images shows at least 70 % of the other's width and height, and nothing else."""
    return _shows(one, other) or _shows(other, one)


class PartFinder:
    """Tells of pairs of images whether one shows a part of the other."""

    def __init__(self, image_of: Callable[[int], Path | bytes]) -> None:
        """Reads nothing yet.

        Args:
            image_of: Returns the file of an image, or its bytes, given its row.
        """
        self._image_of = image_of
        self._look = lru_cache(_CACHED)(self._decode)

    def __call__(self, pairs: Pairs) -> NDArray[np.bool_]:
        """Compares the images of each pair; one that can't be decoded shows a part of none."""
        return np.fromiter(map_ordered(self._compare, pairs.tolist(), _THREADS, 8 * _THREADS), bool, len(pairs))

    def _compare(self, pair: list[int]) -> bool:
        one, other = (self._look(row) for row in pair)
        return one is not None and other is not None and is_part(one, other)

    def _decode(self, row: int) -> Grey | None:
        try:
            return shrink(decode(self._image_of(row), at_least=2 * _SIDE))
        except ImageError:
            return None


def _shows(whole: Grey, part: Grey) -> bool:
    """Whether an image shows another in some place, at one of the scales."""
    import cv2  # takes a tenth of a second

    for scale in _SCALES:
        width, height = (max(1, round(side * scale)) for side in part.shape[::-1])
        if height > whole.shape[0] or width > whole.shape[1]:
            continue
        template = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        _, highest, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(whole, template, cv2.TM_CCOEFF_NORMED))
        if highest >= _ALIKE and _correlate_details(template, whole[y : y + height, x : x + width]) >= _DETAIL_ALIKE:
            return True
    return False


def _correlate_details(one: Grey, other: Grey) -> float:
    """Returns the correlation of the details of two images of one size; near 0 where one has none but noise."""
    import cv2

    details = [image - cv2.GaussianBlur(image, (0, 0), _DETAIL_PIXELS) for image in (one, other)]
    deviations = np.prod([detail.std() for detail in details])
    return float((details[0] * details[1]).mean() / max(1.0, deviations))  # a shade of 255 is noise
