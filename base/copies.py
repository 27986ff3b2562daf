"""Groups images that look the same, so that none is held out while its copy is trained on. Needs no model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamloom.base.near_duplicates import close_pairs, phash
from dreamloom.base.pixels import ImageError, decode
from dreamloom.base.progress import Progress
from dreamloom.base.threads import map_ordered

ImageSource = Path | Callable[[], bytes]
"""An image's file, or what reads its bytes."""

BITS = 4
"""Most bits in which the hashes of images that look the same differ, as in choose."""
SHADES = 8.0
"""Most shades of 255 by which their colors differ on average, seen at 8 × 8: the hash sees no color."""
_SIDE = 8
_DECODED = 64
"""Pixels of the shorter side at which an image is looked at; a JPEG is not decoded further."""
_THREADS = 8


def group_copies(images: Sequence[ImageSource], progress: Progress) -> list[int | None]:
    """Returns a number for each image that is the same for images that look the same; None: no other looks like it.

    The number is the place of the group's first image. Images that look the same as a third one are in one group. One
    that can't be decoded looks like no other.
    """
    looks: list[tuple[int, NDArray[np.float32]] | None] = []
    for look in map_ordered(_look, images, _THREADS, ahead=4 * _THREADS):
        looks.append(look)
        progress(len(looks), len(images), "looking for copies")
    seen = [row for row, look in enumerate(looks) if look is not None]
    hashes = np.array([look[0] for look in looks if look is not None], dtype=np.int64)
    colors = np.array([look[1] for look in looks if look is not None], dtype=np.float32)
    groups = _components(len(seen), _pairs(hashes, lambda a, b: np.abs(colors[a] - colors[b]).mean(axis=1)))
    found: list[int | None] = [None] * len(images)
    for row, group in zip(seen, groups, strict=True):
        found[row] = group
    return found


def _look(image: ImageSource) -> tuple[int, NDArray[np.float32]] | None:
    """Returns the perceptual hash of an image and its colors [192]; None: it can't be decoded."""
    try:
        pixels = decode(image if isinstance(image, Path) else image(), at_least=_DECODED)
    except ImageError:
        return None
    return phash(pixels), np.asarray(pixels.resize((_SIDE, _SIDE)), dtype=np.float32).ravel()


def _pairs(
    hashes: NDArray[np.int64], distances: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
) -> list[tuple[int, int]]:
    """Returns the pairs of rows whose hashes are near and whose colors are."""
    values, of_row = np.unique(hashes.view(np.uint64), return_inverse=True)
    rows_of: list[list[int]] = [[] for _ in values]
    for row, value in enumerate(of_row.tolist()):
        rows_of[value].append(row)
    pairs = []
    for first, second in [*((v, v) for v in range(len(values))), *close_pairs(values, BITS)]:
        others = np.array(rows_of[second], dtype=np.int64)
        for row in rows_of[first]:
            near = others[others > row] if first == second else others
            alike = near[distances(np.full(len(near), row), near) <= SHADES] if len(near) else near
            pairs += [(row, other) for other in alike.tolist()]
    return pairs


def _components(count: int, pairs: Sequence[tuple[int, int]]) -> list[int | None]:
    """Returns the connected component of each row, by its first row; None for a row that is alone."""
    parents = list(range(count))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    paired = {row for pair in pairs for row in pair}
    return [root(row) if row in paired else None for row in range(count)]
