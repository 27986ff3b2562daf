"""Says what an image of the demo's world shows, by rules on its pixels alone; no model, no caption.

The background is the border's colour, an object is what differs from it, an object's colour is the nearest in hue
at any light, and its shape is the one whose silhouette overlaps it best.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dreamloom.demo.world import BACKGROUNDS, COLOURS, RESERVED, SHAPES, STYLES, Relation, Scene, Thing, render

SIDE = 64
LEAST_DISTANCE = 40.0
"""From the background, in RGB steps, of an object's pixels; a photo's shadow and light stay below it."""
LEAST_AREA = 50
"""Pixels of the smallest object at 64 × 64; a small cross or star has about 230."""


@dataclass(frozen=True)
class Verdict:
    """What an image shows."""

    background: str
    objects: tuple[tuple[str, str], ...]
    """(shape, colour) of each object: topmost first where two are above each other, else leftmost first."""
    relation: Relation | None
    """Of the first of two objects to the second; None for any other number."""


@dataclass(frozen=True)
class Match:
    """Which parts of a scene an image shows."""

    background: bool
    shapes: bool
    """The same shapes, in whatever order."""
    colours: bool
    objects: bool
    """The same pairs of shape and colour, in whatever order."""
    relation: bool
    """The objects, and each in its place."""

    @property
    def all(self) -> bool:
        """The whole caption is right; style and size aside."""
        return self.background and self.relation


def matches(verdict: Verdict, scene: Scene) -> Match:
    """Scores an image by the scene it was to show."""
    wanted = [(thing.shape, thing.colour) for thing in scene.things]
    shapes, colours = ([sorted(pair[i] for pair in pairs) for pairs in (verdict.objects, wanted)] for i in (0, 1))
    return Match(
        background=verdict.background == scene.background,
        shapes=shapes[0] == shapes[1],
        colours=colours[0] == colours[1],
        objects=sorted(verdict.objects) == sorted(wanted),
        relation=list(verdict.objects) == wanted and verdict.relation == scene.relation,
    )


def judge(picture: NDArray[np.uint8]) -> Verdict:
    """Says what an image shows.

    Args:
        image: uint8 [height, width, 3], RGB; any size (its middle square counts, at 64 × 64).
    """
    small = _shrink(picture).astype(np.float32)
    border = np.concatenate([small[:2].reshape(-1, 3), small[-2:].reshape(-1, 3), *small[2:-2, [0, 1, -2, -1]]])
    ground = np.median(border, axis=0)
    background = _nearest(ground, BACKGROUNDS)
    distance = np.linalg.norm(small - ground, axis=2)
    found = [(_centre(mask), mask) for mask in _objects(distance)]
    relation: Relation | None = None
    if len(found) == 2:
        gap = np.abs(found[0][0] - found[1][0])
        relation = "above" if gap[1] > gap[0] else "left of"
    found.sort(key=lambda item: item[0][1 if relation == "above" else 0])
    objects = tuple((_shape(mask), _colour(small, distance, mask)) for _, mask in found)
    return Verdict(background, objects, relation)


def _shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(picture[top : top + side, left : left + side])
    if side == SIDE:
        return square
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _objects(distance: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """A filled mask for each object. Its edge is halfway from the background to the object's own interior."""
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
    """The pieces of a mask, without their holes, least area as above."""
    import cv2

    pieces = []
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        piece = np.zeros_like(mask)
        cv2.drawContours(piece, [contour], -1, 1, cv2.FILLED)
        if piece.sum() >= LEAST_AREA:
            pieces.append(piece)
    return pieces


def _centre(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(x, y) of the middle of the mask's box."""
    y, x = np.nonzero(mask)
    return np.array([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2])


def _colour(small: NDArray[np.float32], distance: NDArray[np.float32], mask: NDArray[np.uint8]) -> str:
    """Of the pixels farthest from the background: a pencil's line, not what it tints."""
    inside = mask.astype(bool)
    line = inside & (distance >= np.quantile(distance[inside], 0.6))
    return _nearest(np.median(small[line], axis=0), COLOURS)


def _nearest(colour: NDArray[np.float32], names: dict[str, tuple[int, int, int]]) -> str:
    """The nearest of the named colours, each at the light (0.85 to 1.1 of its own) at which it comes nearest."""
    table = np.array(list(names.values()), np.float64)
    light = np.clip((table @ colour) / (table * table).sum(axis=1), 0.85, 1.1)
    return list(names)[int(np.linalg.norm(table * light[:, None] - colour, axis=1).argmin())]


def _shape(mask: NDArray[np.uint8]) -> str:
    box = _boxed(mask)
    names, templates = _templates()
    overlap = np.minimum(templates, box).sum(axis=(1, 2)) / np.maximum(templates, box).sum(axis=(1, 2))
    return names[int(overlap.argmax())]


def _boxed(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A mask's own box, stretched to 32 × 32, values 0..1."""
    import cv2

    y, x = np.nonzero(mask)
    cut = mask[y.min() : y.max() + 1, x.min() : x.max() + 1].astype(np.float32)
    return np.asarray(cv2.resize(cut, (32, 32), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache
def _templates() -> tuple[list[str], NDArray[np.float32]]:
    """Every shape's silhouette, as the rules above see it in drawings of either size and each style."""
    names, boxes = [], []
    for shape in SHAPES + RESERVED:
        for style in STYLES:
            for size in ("big", "small"):
                scene = Scene("white", style, (Thing(shape, "blue"),), "big" if size == "big" else "small")
                distance = np.linalg.norm(render(scene).astype(np.float32) - BACKGROUNDS["white"], axis=2)
                names.append(shape)
                boxes.append(_boxed(_objects(distance)[0]))
    return names, np.stack(boxes)
