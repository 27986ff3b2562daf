"""The judge: it reads the world's drawings, and no part of a caption may be wrong."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from dreamloom.demo.judge import judge, matches
from dreamloom.demo.world import RESERVED, SHAPES, STYLES, Scene, Style, Thing, random_scene, render


def drawn(count: int, seed: int, style: Style) -> list[Scene]:
    rng = np.random.default_rng(seed)
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng, shapes=SHAPES + RESERVED)
        if scene.style == style:
            found.append(scene)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_it_reads_the_worlds_own_drawings(style: Style) -> None:
    scenes = drawn(300, 7, style)
    seen = [matches(judge(render(scene)), scene) for scene in scenes]
    assert np.mean([match.background for match in seen]) == 1
    assert np.mean([match.size for match in seen]) >= 0.99
    assert np.mean([match.objects for match in seen]) >= 0.99
    assert np.mean([match.all for match in seen]) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_it_reads_soft_noisy_and_enlarged_drawings(style: Style) -> None:
    rng = np.random.default_rng(8)
    right = []
    for scene in drawn(200, 9, style):
        soft = cv2.GaussianBlur(render(scene, 96), (0, 0), 1.2).astype(float) + rng.normal(0, 4, (96, 96, 3))
        right.append(matches(judge(np.clip(soft, 0, 255).astype(np.uint8)), scene).all)
    assert np.mean(right) >= 0.97


def test_it_knows_what_is_not_there() -> None:
    blank = np.full((64, 64, 3), 246, np.uint8)
    verdict = judge(blank)
    assert (verdict.background, verdict.objects, verdict.relation, verdict.size) == ("white", (), None, None)
    scene = Scene("white", "flat", (Thing("circle", "red"),))
    match = matches(verdict, scene)
    assert match.background
    assert not (match.shapes or match.colors or match.objects or match.all)


def test_matches_tell_wrong_binding_and_wrong_order_apart() -> None:
    shown = Scene("white", "flat", (Thing("circle", "red"), Thing("star", "blue")), relation="above", seed=1)
    verdict = judge(render(shown))
    assert matches(verdict, shown).all
    swapped_colors = Scene("white", "flat", (Thing("circle", "blue"), Thing("star", "red")), relation="above")
    match = matches(verdict, swapped_colors)
    assert match.shapes and match.colors and not match.objects
    swapped_places = Scene("white", "flat", (Thing("star", "blue"), Thing("circle", "red")), relation="above")
    match = matches(verdict, swapped_places)
    assert match.objects and not match.relation
    beside = Scene("white", "flat", shown.things, relation="left of")
    assert not matches(verdict, beside).relation


RIGHT = Scene("pink", "photo", (Thing("heart", "green"),), size="big", seed=5)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"background": "grey"}, "background"),
        ({"things": (Thing("star", "green"),)}, "shapes"),
        ({"things": (Thing("heart", "blue"),)}, "colors"),
        ({"size": "small"}, "size"),
        ({"style": "flat"}, "style"),
        ({"style": "pencil"}, "style"),
    ],
)
def test_an_image_is_right_only_if_all_of_its_caption_is(changed: dict[str, Any], part: str) -> None:
    drawn_wrong = judge(render(replace(RIGHT, **changed)))
    match = matches(drawn_wrong, RIGHT)
    assert not getattr(match, part) and not match.all
    assert matches(judge(render(RIGHT)), RIGHT).all
