"""Tells what an image of the demo's world shows, by rules on its pixels, without a model or a caption.

The background is the border's color. An object is what differs from it, its color is the nearest one at any light, and
its shape is that whose silhouette overlaps it most. A photo's light is uneven; a pencil drawing is paler
inside its line.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dreamloom.demo.world import (
    BACKGROUNDS,
    COLORS,
    RADIUS,
    RESERVED,
    SHAPES,
    STYLES,
    Relation,
    Scene,
    Size,
    Style,
    Thing,
    outline_of,
    render,
)

SIDE = 64
LEAST_DISTANCE = 40.0
"""Minimum distance of an object's pixels from the background, in RGB steps; shadow and light of a photo stay below."""
LEAST_AREA = 50
"""Minimum pixels of an object at 64 × 64; a small cross or star has about 230."""
PALE = 0.78
"""Distance of a drawing's inside from the background, as a share of its line's. On the world's own drawings and
the base model's, it is at most 0.66 for pencil, and at least 0.91 for flat and photo."""
UNEVEN = 0.022
"""Difference of light between parts of the border, as a share of it. On the same drawings, 98 % of flat and pencil are
below 0.022, and of photo above 0.032."""


@dataclass(frozen=True)
class Verdict:
    """What an image shows."""

    background: str
    objects: tuple[tuple[str, str], ...]
    """(shape, color) of each object: topmost first where two are above each other, else leftmost first."""
    relation: Relation | None
    """Relation of the first of two objects to the second; None for another number of objects."""
    size: Size | None
    """Size of a single object; None for another number of objects."""
    style: Style


@dataclass(frozen=True)
class Match:
    """Which parts of a scene an image shows."""

    background: bool
    shapes: bool
    """The same shapes, in any order."""
    colors: bool
    objects: bool
    """The same pairs of shape and color, in any order."""
    relation: bool
    """The objects, each in its position."""
    size: bool
    """The size of a single object; two have the same."""
    style: bool

    @property
    def all(self) -> bool:
        """Whether the whole caption is right."""
        return self.background and self.relation and self.size and self.style


def matches(verdict: Verdict, scene: Scene) -> Match:
    """Compares what an image shows with the scene that it should show."""
    wanted = [(thing.shape, thing.color) for thing in scene.things]
    shapes, colors = ([sorted(pair[i] for pair in pairs) for pairs in (verdict.objects, wanted)] for i in (0, 1))
    return Match(
        background=verdict.background == scene.background,
        shapes=shapes[0] == shapes[1],
        colors=colors[0] == colors[1],
        objects=sorted(verdict.objects) == sorted(wanted),
        relation=list(verdict.objects) == wanted and verdict.relation == scene.relation,
        size=len(wanted) > 1 or verdict.size == scene.size,
        style=verdict.style == scene.style,
    )


def judge(image: NDArray[np.uint8]) -> Verdict:
    """Tells what an image shows.

    Args:
        image: uint8 [height, width, 3], RGB, of any size; its middle square is judged, at 64 × 64.
    """
    small = _shrink(image).astype(np.float32)
    border = np.concatenate([small[:2].reshape(-1, 3), small[-2:].reshape(-1, 3), *small[2:-2, [0, 1, -2, -1]]])
    ground = np.median(border, axis=0)
    background = _nearest(ground, BACKGROUNDS)
    distance = np.linalg.norm(small - ground, axis=2)
    objects = [(_center(mask), mask) for mask in _objects(distance)]
    relation: Relation | None = None
    if len(objects) == 2:
        gap = np.abs(objects[0][0] - objects[1][0])
        relation = "above" if gap[1] > gap[0] else "left of"
    objects.sort(key=lambda item: item[0][1 if relation == "above" else 0])
    names = tuple((_shape(mask), _color(small, distance, mask)) for _, mask in objects)
    size = _size(names[0][0], objects[0][1]) if len(objects) == 1 else None
    return Verdict(background, names, relation, size, _style(small, distance, [mask for _, mask in objects]))


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side == SIDE:
        return square
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _objects(distance: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """A filled mask for each object, whose edge is about halfway from the background to the object's interior."""
    import cv2

    far = (distance > LEAST_DISTANCE).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(far, connectivity=4)
    masks = []
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < LEAST_AREA:
            continue
        own = labels == label
        edge = max(LEAST_DISTANCE, 0.35 * float(np.quantile(distance[own], 0.9)))
        masks += _filled((own & (distance > edge)).astype(np.uint8))
    return masks


def _filled(mask: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The pieces of a mask with their holes filled, without those below LEAST_AREA."""
    import cv2

    pieces = []
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        piece = np.zeros_like(mask)
        cv2.drawContours(piece, [contour], -1, 1, cv2.FILLED)
        if piece.sum() >= LEAST_AREA:
            pieces.append(piece)
    return pieces


def _center(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The center (x, y) of the mask's box."""
    y, x = np.nonzero(mask)
    return np.array([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2])


def _color(small: NDArray[np.float32], distance: NDArray[np.float32], mask: NDArray[np.uint8]) -> str:
    """The color of the pixels farthest from the background: of a pencil drawing, its line and not its tint."""
    inside = mask.astype(bool)
    line = inside & (distance >= np.quantile(distance[inside], 0.6))
    return _nearest(np.median(small[line], axis=0), COLORS)


def _nearest(color: NDArray[np.float32], names: dict[str, tuple[int, int, int]]) -> str:
    """The nearest of the named colors, each at its nearest light, 0.85 to 1.1 of its own."""
    table = np.array(list(names.values()), np.float64)
    light = np.clip((table @ color) / (table * table).sum(axis=1), 0.85, 1.1)
    return list(names)[int(np.linalg.norm(table * light[:, None] - color, axis=1).argmin())]


def _size(shape: str, mask: NDArray[np.uint8]) -> Size:
    """The size whose radius is nearer to that of the mask's box."""
    y, x = np.nonzero(mask)
    radius = (max(np.ptp(x), np.ptp(y)) + 1) / SIDE / np.ptp(outline_of(shape), axis=0).max()
    return "big" if radius > (RADIUS["big"] + RADIUS["small"]) / 2 else "small"


def _style(small: NDArray[np.float32], distance: NDArray[np.float32], masks: list[NDArray[np.uint8]]) -> Style:
    import cv2

    paleness = []
    for mask in masks:
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
        inside = np.median(distance[depth >= 0.7 * depth.max()])
        paleness.append(inside / np.quantile(distance[mask.astype(bool)], 0.9))
    if paleness and np.median(paleness) < PALE:
        return "pencil"
    corners = [small[y, x] for y in (slice(8), slice(-8, None)) for x in (slice(8), slice(-8, None))]
    sides = [small[:4], small[-4:], small[:, :4], small[:, -4:]]
    light = [np.median(part.reshape(-1, 3), axis=0).mean() for part in corners + sides]
    return "photo" if np.ptp(light) > UNEVEN * np.median(light) else "flat"


def _shape(mask: NDArray[np.uint8]) -> str:
    box = _boxed(mask)
    names, templates = _templates()
    overlap = np.minimum(templates, box).sum(axis=(1, 2)) / np.maximum(templates, box).sum(axis=(1, 2))
    return names[int(overlap.argmax())]


def _boxed(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mask's box, stretched to 32 × 32; values 0 to 1."""
    import cv2

    y, x = np.nonzero(mask)
    cut = mask[y.min() : y.max() + 1, x.min() : x.max() + 1].astype(np.float32)
    return np.asarray(cv2.resize(cut, (32, 32), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache
def _templates() -> tuple[list[str], NDArray[np.float32]]:
    """The silhouettes of all shapes, as the rules above see them in drawings of each size and style."""
    names, boxes = [], []
    for shape in SHAPES + RESERVED:
        for style in STYLES:
            for size in ("big", "small"):
                scene = Scene("white", style, (Thing(shape, "blue"),), "big" if size == "big" else "small")
                distance = np.linalg.norm(render(scene).astype(np.float32) - BACKGROUNDS["white"], axis=2)
                names.append(shape)
                boxes.append(_boxed(_objects(distance)[0]))
    return names, np.stack(boxes)
