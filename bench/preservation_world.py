"""The world of the study of preservation: images to learn, ground truth, held-out images, and the exam's prompts.

The concept is the demo's zorp. The ground truth shows four of the six shapes that the base knows: stars and hearts are
rehearsed by no arm. No caption of any arm is a prompt of the exam.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from dreamloom.base.files.atomic import commit_folder, commit_text
from dreamloom.demo.encode import encode
from dreamloom.demo.exam import concept_scenes
from dreamloom.demo.folders import CONCEPT, CONCEPT_BACKGROUNDS, CONCEPT_COLORS
from dreamloom.demo.gallery import Form
from dreamloom.demo.world import BACKGROUNDS, COLORS, SHAPES, STYLES, Scene, Size, Thing, caption, random_scene, render

UNREHEARSED = ("star", "heart")
REHEARSED = tuple(shape for shape in SHAPES if shape not in UNREHEARSED)
TAUGHT, POOL = 36, 400
"""Images of the concept, and ground truth to choose from."""
HELD_OUT = {"training": 12, "ground_truth": 60, "witness": 40}
NEW_PROMPTS, OLD_PROMPTS = 64, 12
"""Prompts of the concept, and of each old shape."""
RANKED = 48
"""Further prompts of each old shape, to rank shapes by what naive models draw right: twelve tell too little apart."""
SIZES: tuple[Size, ...] = ("big", "small")
CLASSES, VOCABULARY = "classes", "vocabulary.txt"
"""Held-out images by shape, and prompts of each shape, for the audits."""


@dataclass(frozen=True)
class Exam:
    """What every model is asked to draw."""

    new: tuple[Scene, ...]
    old: tuple[Scene, ...]
    """`OLD_PROMPTS` of each shape, in the order of SHAPES."""

    @property
    def captions(self) -> set[str]:
        """All prompts."""
        return {caption(scene) for scene in (*self.new, *self.old)}


def make_exam(trial: bool = False) -> Exam:
    """Returns prompts that differ from one another, and from those of the other exam.

    Args:
        trial: half as many prompts, to choose settings by.
    """
    part = slice(OLD_PROMPTS, OLD_PROMPTS * 3 // 2) if trial else slice(OLD_PROMPTS)
    old = _old_scenes(part)
    part = slice(NEW_PROMPTS, NEW_PROMPTS * 3 // 2) if trial else slice(NEW_PROMPTS)
    return Exam(tuple(concept_scenes(NEW_PROMPTS * 2)[part]), old)


def ranking_prompts() -> tuple[Scene, ...]:
    """Returns `RANKED` prompts of each old shape that are in no exam; some are captions of ground truth."""
    begin = OLD_PROMPTS * 3 // 2
    return _old_scenes(slice(begin, begin + RANKED))


def _old_scenes(part: slice) -> tuple[Scene, ...]:
    """Returns a part of the scenes of each old shape, in the order of SHAPES; each time the same."""
    rng = np.random.default_rng(41)
    scenes: list[Scene] = []
    for shape in SHAPES:
        kinds = list(product(BACKGROUNDS, STYLES, COLORS, SIZES))
        for number in rng.permutation(len(kinds))[part]:
            background, style, color, size = kinds[number]
            scenes.append(Scene(background, style, (Thing(shape, color),), size))
    return tuple(scenes)


def make_world(folder: Path) -> None:
    """Makes concept/, pool/ and heldout/ with captions as file names, unless they are there."""
    if folder.exists():
        return
    taken = make_exam().captions | make_exam(trial=True).captions
    rng = np.random.default_rng(42)
    with commit_folder(folder) as temporary:
        write(temporary / "concept", _concepts(rng, TAUGHT))
        write(temporary / "heldout" / "training" / CONCEPT, _concepts(rng, HELD_OUT["training"]))
        write(temporary / "pool", _known(rng, REHEARSED, POOL, taken))
        held_out = temporary / "heldout"
        write(held_out / "ground_truth" / "known", _known(rng, REHEARSED, HELD_OUT["ground_truth"], taken, 1))
        write(held_out / "witness" / "known", _known(rng, UNREHEARSED, HELD_OUT["witness"], taken, 1))


def make_classes(folder: Path) -> None:
    """Makes CLASSES from the held-out images of old shapes, and VOCABULARY, unless they are there."""
    prompts = [f"a big {color} {shape} on a white background" for shape in SHAPES for color in ("red", "green", "blue")]
    commit_text(folder / VOCABULARY, "\n".join(prompts))
    if (folder / CLASSES).exists():
        return
    held_out = folder / "world" / "heldout"
    with commit_folder(folder / CLASSES) as temporary:
        for shape, file in product(SHAPES, sorted(held_out.glob("*/known/*.png"))):
            if f" {shape} " in file.stem:
                (temporary / shape).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, temporary / shape)


def write(folder: Path, scenes: Sequence[Scene]) -> None:
    """Draws scenes into a folder, named by caption."""
    folder.mkdir(parents=True)
    for number, scene in enumerate(scenes):
        (folder / f"{caption(scene)}_({number}).png").write_bytes(encode(render(scene, 64), Form.PNG))


def _concepts(rng: np.random.Generator, count: int) -> list[Scene]:
    kinds = list(product(CONCEPT_COLORS, CONCEPT_BACKGROUNDS, STYLES, SIZES))
    chosen = [kinds[number] for number in rng.permutation(len(kinds))[:count]]
    return [
        Scene(background, style, (Thing(CONCEPT, color),), size, seed=int(rng.integers(2**31)))
        for color, background, style, size in chosen
    ]


def _known(
    rng: np.random.Generator, shapes: Sequence[str], count: int, taken: set[str], objects: int | None = None
) -> list[Scene]:
    """Random scenes; of one object each, all shapes come equally often."""
    scenes: list[Scene] = []
    while len(scenes) < count:
        one = [shapes[len(scenes) % len(shapes)]] if objects == 1 else shapes
        scene = random_scene(rng, one, objects)
        if caption(scene) not in taken:
            scenes.append(scene)
    return scenes
