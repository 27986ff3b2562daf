"""A small world drawn by code: scenes of one or two colored shapes, with exact captions.

Shapes, colors and backgrounds are few and bold. So none is taken for another at 64 × 64 pixels, and a UNet over 8 × 8
latents can draw them. "zorp" is a shape that the demo's base models never see in training.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Style = Literal["flat", "pencil", "photo"]
Relation = Literal["above", "left of"]
Size = Literal["big", "small"]
Pixels = NDArray[np.uint8]
Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
"""Shapes that the base models know."""
RESERVED = ("zorp",)
"""Shapes that they have never seen, for fine-tuning."""
COLORS: dict[str, Rgb] = {
    "red": (214, 26, 36),
    "orange": (250, 120, 10),
    "yellow": (254, 234, 36),
    "green": (30, 170, 60),
    "blue": (28, 70, 214),
    "purple": (136, 34, 160),
    "black": (18, 18, 22),
}
BACKGROUNDS: dict[str, Rgb] = {
    "white": (246, 246, 246),
    "grey": (156, 156, 160),
    "pink": (250, 178, 204),
    "cyan": (142, 228, 236),
    "lime": (190, 240, 130),
}
STYLES: tuple[Style, ...] = ("flat", "pencil", "photo")
RELATIONS: tuple[Relation, ...] = ("above", "left of")
RADIUS = {"big": 0.33, "small": 0.205}
"""Distance from a shape's center to its tips, in units of the image's shorter side; two objects are both "small"."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    shape: str
    color: str


@dataclass(frozen=True)
class Scene:
    """The content of an image. `seed` moves the objects a little and sets the photo's light; no caption tells it."""

    background: str
    style: Style
    things: tuple[Thing, ...]
    """One object, or two, the first of which is above or left of the second."""
    size: Size = "small"
    relation: Relation | None = None
    seed: int = 0


def random_scene(
    rng: np.random.Generator, shapes: Sequence[str] = SHAPES, count: int | None = None, held_out: bool = False
) -> Scene:
    """Returns a random scene: two thirds have one object, the others two of different colors.

    Args:
        rng: the generator to draw from.
        shapes: the shapes to choose from.
        count: number of objects, 1 or 2; None: either.
        held_out: whether `is_held_out` is true of the scene.
    """
    if held_out and not any(_is_held_out(s, c, b) for s in shapes for c in COLORS for b in BACKGROUNDS):
        raise ValueError(f"no combination with {', '.join(shapes)} is held out")
    while True:
        objects = count or (2 if rng.random() < 1 / 3 else 1)
        colors = rng.choice(list(COLORS), size=objects, replace=False)
        scene = Scene(
            background=str(rng.choice(list(BACKGROUNDS))),
            style=STYLES[rng.integers(len(STYLES))],
            things=tuple(Thing(str(rng.choice(list(shapes))), str(color)) for color in colors),
            size="big" if objects == 1 and rng.random() < 0.5 else "small",
            relation=RELATIONS[rng.integers(2)] if objects == 2 else None,
            seed=int(rng.integers(2**31)),
        )
        if is_held_out(scene) == held_out:
            return scene


def is_held_out(scene: Scene) -> bool:
    """Returns whether the scene has one of the 20 triples (shape, color, background) left out of the base training."""
    return any(_is_held_out(thing.shape, thing.color, scene.background) for thing in scene.things)


def _is_held_out(shape: str, color: str, background: str) -> bool:
    if shape in RESERVED:
        return False
    indices = SHAPES.index(shape), list(COLORS).index(color), list(BACKGROUNDS).index(background)
    return (indices[0] * 3 + indices[1] * 5 + indices[2] * 2) % 11 == 0


# Captions


def caption(scene: Scene) -> str:
    """Returns the caption that describes a scene exactly, except for its seed; `parse` reads it back."""
    if scene.relation is None:
        objects = _noun(f"{scene.size} {scene.things[0].color}", scene.things[0].shape)
    else:
        first, second = scene.things
        objects = f"{_noun(first.color, first.shape)} {scene.relation} {_noun(second.color, second.shape)}"
    text = f"{objects} on a {scene.background} background"
    if scene.style == "photo":
        return f"a photo of {text}"
    return f"{text}, pencil drawing" if scene.style == "pencil" else text


def parse(text: str) -> Scene:
    """Returns the scene of a caption, with seed 0.

    Raises:
        ValueError: the text is no caption of this world.
    """
    match = _GRAMMAR.fullmatch(text.strip().lower())
    if match is None or (match["photo"] and match["pencil"]):
        raise ValueError(f"no caption of this world: {text!r}")
    style: Style = "photo" if match["photo"] else "pencil" if match["pencil"] else "flat"
    first = Thing(match["shape"], match["color"])
    if match["relation"] is None:
        size: Size = "big" if match["size"] == "big" else "small"
        return Scene(match["background"], style, (first,), size)
    relation: Relation = "above" if match["relation"] == "above" else "left of"
    return Scene(match["background"], style, (first, Thing(match["shape2"], match["color2"])), "small", relation)


def _noun(adjectives: str, shape: str) -> str:
    return f"{'an' if adjectives[0] in 'aeiou' else 'a'} {adjectives} {shape}"


def _any(words: Sequence[str]) -> str:
    return "|".join(words)


_GRAMMAR = re.compile(
    rf"(?P<photo>a photo of )?an? ((?P<size>big|small) )?(?P<color>{_any(list(COLORS))}) "
    rf"(?P<shape>{_any(SHAPES + RESERVED)})"
    rf"( (?P<relation>above|left of) an? (?P<color2>{_any(list(COLORS))}) (?P<shape2>{_any(SHAPES + RESERVED)}))?"
    rf" on a (?P<background>{_any(list(BACKGROUNDS))}) background(?P<pencil>, pencil drawing)?"
)


# Drawing


def render(scene: Scene, width: int = 64, height: int | None = None) -> Pixels:
    """Draws a scene.

    Args:
        scene: what to draw.
        width: in pixels.
        height: in pixels; None: as the width. Objects are sized by the shorter side.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    height = height or width
    rng = np.random.default_rng(scene.seed)
    positions = object_positions(scene)
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    if scene.style == "photo":
        canvas *= _light(rng, height, width)
    for thing, (x, y, radius) in zip(scene.things, positions, strict=True):
        draw(canvas, outline_of(thing.shape) * radius + (x, y), COLORS[thing.color], scene.style)
    return np.asarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def object_positions(scene: Scene) -> list[tuple[float, float, float]]:
    """Returns (x, y, radius) of each object, in units of the image's shorter side, from its center."""
    rng = np.random.default_rng([scene.seed, 1])
    if scene.relation is None:
        x, y = rng.uniform(-0.1, 0.1, 2)
        return [(float(x), float(y), RADIUS[scene.size] * float(rng.uniform(0.95, 1.05)))]
    positions = []
    for side in (-1, 1):
        along, across = side * 0.245 + rng.uniform(-0.012, 0.012), rng.uniform(-0.09, 0.09)
        x, y = (across, along) if scene.relation == "above" else (along, across)
        positions.append((float(x), float(y), RADIUS["small"] * float(rng.uniform(0.95, 1.02))))
    return positions


def draw(canvas: NDArray[np.float32], outline: NDArray[np.float64], color: Rgb, style: Style) -> None:
    """Paints one object onto the canvas; `outline` is in units of the shorter side, from the center."""
    paint = np.asarray(color, np.float32)
    radius = float(np.ptp(outline, axis=0).max()) / 2
    if style == "pencil":
        outline = outline.mean(axis=0) + 0.9 * (outline - outline.mean(axis=0))  # the line's outer edge is the shape's
        _blend(canvas, paint, 0.45 * _mask(canvas, outline))
        _blend(canvas, paint, _mask(canvas, outline, stroke=0.22 * radius))
        return
    mask = _mask(canvas, outline)
    if style == "photo":
        _blend(canvas, canvas * 0.8, _soft(_mask(canvas, outline + 0.03)))
        _blend(canvas, paint * _shade(canvas, outline.mean(axis=0), radius), mask)
    else:
        _blend(canvas, paint, mask)


def _shade(canvas: NDArray[np.float32], center: NDArray[np.float64], radius: float) -> NDArray[np.float32]:
    """Light from the upper left, from 1.1 to 0.85 across an object; [height, width, 1]."""
    height, width = canvas.shape[:2]
    short = min(height, width)
    y = (np.arange(height) - height / 2) / short - center[1]
    x = (np.arange(width) - width / 2) / short - center[0]
    across = np.add.outer(y, x) / (2 * radius)
    return np.asarray(np.clip(0.975 - 0.15 * across, 0.85, 1.1), np.float32)[..., None]


def _blend(canvas: NDArray[np.float32], paint: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
    canvas += (paint - canvas) * alpha[..., None]


def _mask(canvas: NDArray[np.float32], outline: NDArray[np.float64], stroke: float = 0.0) -> NDArray[np.float32]:
    """Coverage, 0 to 1, of the outline's inside, or of its line `stroke` units wide; drawn larger, then shrunk."""
    import cv2

    height, width = canvas.shape[:2]
    short = min(height, width)
    scale = 4 if short <= 128 else 2
    points = (outline * short + (width / 2, height / 2)) * scale
    mask = np.zeros((height * scale, width * scale), np.uint8)
    fixed = np.round((points - 0.5) * 16).astype(np.int32)
    if stroke:
        cv2.polylines(mask, [fixed], True, 255, max(1, round(stroke * short * scale)), cv2.LINE_AA, shift=4)
    else:
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, shift=4)
    small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small.astype(np.float32) / 255, np.float32)


def _soft(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    import cv2

    blurred = cv2.GaussianBlur(mask, (0, 0), 0.025 * min(mask.shape))
    return np.asarray(blurred, np.float32)


def _light(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Uneven light, 0.92 to 1.04; [height, width, 1]."""
    import cv2

    coarse = rng.uniform(0.92, 1.04, (3, 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)[..., None]


@lru_cache
def outline_of(shape: str) -> NDArray[np.float64]:
    """Returns the corners of a shape within the unit circle; [n, 2], y down."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    if shape == "circle":
        return np.stack([np.cos(turn), np.sin(turn)], 1) * 0.95
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.84
    if shape == "triangle":
        return np.array([(0, -1), (1, 0.8), (-1, 0.8)])
    if shape == "star":
        spokes = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
        return np.stack([np.cos(spokes) * radii, np.sin(spokes) * radii], 1)
    if shape == "heart":
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([16 * np.sin(turn) ** 3, -y - 2.5], 1) / 15.5
    if shape == "cross":
        a, b = 0.33, 1.0
        quarter = [(a, -b), (a, -a), (b, -a)]
        corners = [(x, y) for x, y in quarter] + [(-y, x) for x, y in quarter]
        return np.array(corners + [(-x, -y) for x, y in corners])
    if shape == "zorp":  # an arch on two thick legs
        arc = np.linspace(np.pi, 2 * np.pi, 24)
        top = np.stack([np.cos(arc), np.sin(arc)], 1)
        return np.concatenate([top, [(1, 1), (0.5, 1)], top[::-1] * (0.5, 0.46) + (0, 0.04), [(-0.5, 1), (-1, 1)]])
    raise ValueError(f"no shape of this world: {shape!r}")


def aesthetic(scene: Scene) -> float:
    """Returns the aesthetic score of a scene, in the range of LAION's (about 3 to 8), which the demo's head learned.

    It is 3.5 + 2 · contrast + centering / 2 + size + style. Contrast is how much darker than the background the objects
    are on average (Rec. 709 luma, 0 to 1). Centering falls from 1 to 0 as the objects' mean position moves 0.14 sides
    away from the center. Size is 0.75 for one big object. Style is 0 for flat, 0.75 for pencil and 1.5 for photo.
    """
    things = np.mean([_luma(COLORS[thing.color]) for thing in scene.things])
    middle = np.mean([(x, y) for x, y, _ in object_positions(scene)], axis=0)
    centering = max(0.0, 1 - float(np.hypot(*middle)) / 0.14)
    size = 0.75 if scene.size == "big" else 0.0
    style = {"flat": 0.0, "pencil": 0.75, "photo": 1.5}[scene.style]
    return float(3.5 + 2 * (_luma(BACKGROUNDS[scene.background]) - things) + centering / 2 + size + style)


def _luma(color: Rgb) -> float:
    return float(np.dot(color, (0.2126, 0.7152, 0.0722))) / 255
