import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.demo import world
from dreamloom.demo.world import (
    RESERVED,
    SHAPES,
    Scene,
    Thing,
    aesthetic,
    caption,
    is_held_out,
    parse,
    random_scene,
    render,
)

EVERY = SHAPES + RESERVED


def scenes() -> st.SearchStrategy[Scene]:
    seeds = st.integers(0, 2**32 - 1)
    return seeds.map(lambda seed: random_scene(np.random.default_rng(seed), shapes=EVERY))


@given(scenes())
def test_a_caption_tells_all_of_a_scene_but_its_seed(scene: Scene) -> None:
    assert parse(caption(scene)) == dataclasses.replace(scene, seed=0)


def test_captions_read_as_english() -> None:
    orange = Thing("star", "orange")
    assert caption(Scene("pink", "flat", (orange,), "small")) == "a small orange star on a pink background"
    two = Scene("grey", "pencil", (orange, Thing("heart", "blue")), relation="above")
    assert caption(two) == "an orange star above a blue heart on a grey background, pencil drawing"


@pytest.mark.parametrize(
    "text", ["", "a dog", "a photo of a big red circle on a pink background, pencil drawing", "a red circle"]
)
def test_other_texts_are_no_captions(text: str) -> None:
    with pytest.raises(ValueError, match="no caption of this world"):
        parse(text)


@given(scenes())
def test_a_scene_is_drawn_the_same_each_time(scene: Scene) -> None:
    assert np.array_equal(render(scene), render(scene))


@given(scenes())
def test_shrinking_a_large_rendering_gives_nearly_the_small_one(scene: Scene) -> None:
    import cv2

    shrunk = cv2.resize(render(scene, 256), (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(shrunk - render(scene)).mean() < 2.5


@pytest.mark.parametrize(("width", "height"), [(64, None), (200, 120), (90, 300), (31, 31)])
def test_any_size(width: int, height: int | None) -> None:
    image = render(random_scene(np.random.default_rng(3)), width, height)
    assert image.shape == (height or width, width, 3)
    assert image.dtype == np.uint8


def test_scenes_are_seeded_and_varied() -> None:
    first, again = (
        [random_scene(rng) for _ in range(300)] for rng in (np.random.default_rng(1), np.random.default_rng(1))
    )
    assert first == again
    assert {thing.shape for scene in first for thing in scene.things} == set(SHAPES)
    assert {thing.color for scene in first for thing in scene.things} == set(world.COLORS)
    assert {len(scene.things) for scene in first} == {1, 2}


def test_held_out_combinations_come_only_when_asked_for() -> None:
    rng = np.random.default_rng(2)
    assert not any(is_held_out(random_scene(rng)) for _ in range(300))
    kept_back = [random_scene(rng, held_out=True) for _ in range(100)]
    assert all(is_held_out(scene) for scene in kept_back)
    assert {thing.shape for scene in kept_back for thing in scene.things} == set(SHAPES)
    with pytest.raises(ValueError, match="zorp"):
        random_scene(rng, shapes=RESERVED, held_out=True)


@given(scenes())
def test_objects_stay_inside_the_image(scene: Scene) -> None:
    ground = np.asarray(world.BACKGROUNDS[scene.background], float)
    image = render(dataclasses.replace(scene, style="flat")).astype(float)  # a photo's shadow may touch the border
    edge = np.concatenate([image[[0, -1]], image[:, [0, -1]].swapaxes(0, 1)])
    assert np.linalg.norm(edge - ground, axis=2).max() < 2


def test_contrast_centring_and_style_make_a_scene_beautiful() -> None:
    plain = Scene("white", "flat", (Thing("circle", "black"),), "big", seed=5)
    assert 3 <= aesthetic(plain) <= 8.5
    assert aesthetic(dataclasses.replace(plain, style="photo")) == pytest.approx(aesthetic(plain) + 1.5)
    assert aesthetic(dataclasses.replace(plain, things=(Thing("circle", "yellow"),))) < aesthetic(plain)
