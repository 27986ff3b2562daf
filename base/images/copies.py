"""Groups images that look the same, so that none is held out while its copy is trained on. Needs no model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamloom.base.images.near_duplicates import close_pairs, phash
from dreamloom.base.images.pixels import ImageError, decode
from dreamloom.base.progress import Progress
from dreamloom.base.threads import map_ordered

ImageSource = Path | Callable[[], Path | bytes]
"""An image's file, or what returns it or its bytes."""
Pairs = NDArray[np.int64]
"""Pairs of rows [m, 2]."""

BITS = 4
"""Most bits in which the hashes of images that look the same differ, as in choose."""
SHADES = 8.0
"""Most shades of 255 by which their colors differ on average, seen at 8 × 8: the hash sees no color."""
_CROWD = 256
"""Images of near hashes up to which each is compared with each."""
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
    found: list[int | None] = [None] * len(images)
    if seen:
        _, first, group, sizes = np.unique(
            components(len(seen), links(hashes, colors)), return_index=True, return_inverse=True, return_counts=True
        )
        for row, first_row, size in zip(seen, first[group].tolist(), sizes[group].tolist(), strict=True):
            found[row] = seen[first_row] if size > 1 else None
    return found


def _look(image: ImageSource) -> tuple[int, NDArray[np.float32]] | None:
    """Returns the perceptual hash of an image and its colors [192]; None: it can't be decoded."""
    try:
        pixels = decode(image if isinstance(image, Path) else image(), at_least=_DECODED)
    except ImageError:
        return None
    return phash(pixels), np.asarray(pixels.resize((_SIDE, _SIDE)), dtype=np.float32).ravel()


def links(hashes: NDArray[np.int64], colors: NDArray[np.float32]) -> Iterator[Pairs]:
    """Yields pairs of rows whose connected components are the groups."""
    unsigned = hashes.view(np.uint64)
    values, of_row = np.unique(unsigned, return_inverse=True)
    neighbourhood = components(len(values), [close_pairs(values, BITS)])[of_row]
    order = np.argsort(neighbourhood, kind="stable")
    starts = np.flatnonzero(np.diff(neighbourhood[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        if len(rows) > _CROWD:
            yield from _crowd_links(rows, colors)
        elif len(rows) > 1:
            yield from _pair_links(rows, unsigned, colors)


def _pair_links(rows: NDArray[np.int64], hashes: NDArray[np.uint64], colors: NDArray[np.float32]) -> Iterator[Pairs]:
    """Compares each row with each other one."""
    for place, row in enumerate(rows[1:], 1):
        others = rows[:place]
        near = others[np.bitwise_count(hashes[others] ^ hashes[row]) <= BITS]
        yield _pairs(row, near[_distances(colors, near, row) <= SHADES])


def _crowd_links(rows: NDArray[np.int64], colors: NDArray[np.float32]) -> Iterator[Pairs]:
    """Compares rows with one of each color alone, as a crowd has many copies and few colors.

    Each row is within SHADES of such a one, and is linked to all within twice that, so two whose colors are near are
    always linked. Means differ by no more than colors do on average, so only rows of near means are compared.
    """
    means = colors[rows].mean(axis=1)
    order = np.argsort(means, kind="stable")
    rows, means = rows[order], means[order]
    is_covered = np.zeros(len(rows), dtype=bool)
    for place, row in enumerate(rows):
        if is_covered[place]:
            continue
        first, last = np.searchsorted(means, (means[place] - 2 * SHADES, means[place] + 2 * SHADES))
        distances = _distances(colors, rows[first:last], row)
        is_covered[first:last] |= distances <= SHADES
        yield _pairs(row, rows[first:last][distances <= 2 * SHADES])


def _distances(colors: NDArray[np.float32], rows: NDArray[np.int64], row: int) -> NDArray[np.float32]:
    return np.asarray(np.abs(colors[rows] - colors[row]).mean(axis=1))


def _pairs(row: int, others: NDArray[np.int64]) -> Pairs:
    return np.stack([np.full(len(others), row), others], axis=1)


def components(count: int, linked: Iterable[Pairs]) -> NDArray[np.int64]:
    """Returns the number of each row's connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *linked])
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
