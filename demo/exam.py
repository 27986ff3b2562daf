"""Examines a model of the demo world: it draws the concept and everything else, and the judge marks the images.

An image is right if all of its caption is: objects, colors, places, size, background and style. No prompt is a caption
that any of the compared models was trained on.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.files.atomic import commit_folder, commit_json
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.stage import recipe
from dreamloom.demo.comparison import draw_sheet
from dreamloom.demo.folders import CONCEPT, CONCEPT_BACKGROUNDS, CONCEPT_COLORS
from dreamloom.demo.judge import judge, matches
from dreamloom.demo.world import BACKGROUNDS, COLORS, STYLES, Scene, Size, Thing, caption, random_scene

SHOWN = (2, 6)
"""Images of the demo's picture: the exam's first of the concept, and its first of everything else."""
PARTS = {"background": "background", "objects": "objects", "relation": "places", "size": "size", "style": "style"}
"""Attribute of a judge's match → what the table calls it."""


@dataclass(frozen=True)
class Score:
    """So many of so many images are right."""

    right: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the share (Wilson 1927)."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.of).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        """Returns a text such as "58 of 64, 81 to 96 %"."""
        low, high = self.interval
        return f"{self.right} of {self.of}, {100 * low:.0f} to {100 * high:.0f} %"


@dataclass(frozen=True)
class ExamResult:
    """What a model drew, and how much of it was right."""

    prompts: list[str]
    """Those of the concept, then the others."""
    right: list[bool]
    """For each prompt, whether the image shows the whole caption."""
    num_concept: int
    """Number of prompts of the concept."""
    parts: dict[str, int]
    """Part of a caption, as in PARTS → number of the other prompts of which it is right."""
    strays: int
    """Number of the other prompts whose image shows the concept instead."""

    @property
    def concept(self) -> Score:
        """Of the prompts of the concept."""
        return _score(self.right[: self.num_concept])

    @property
    def general(self) -> Score:
        """Of the other prompts."""
        return _score(self.right[self.num_concept :])

    @property
    def shown(self) -> list[int]:
        """Numbers of the images that the demo's picture shows."""
        concept, general = SHOWN
        last = min(self.num_concept + general, len(self.prompts))
        return [*range(min(concept, self.num_concept)), *range(self.num_concept, last)]


def examine(model: Path, folder: Path, num_images: int, seen: Collection[str] = (), seed: int = 0) -> ExamResult:
    """Has a model draw, and marks the images. Does nothing where `folder` is of this model and these settings.

    Args:
        model: a diffusers folder.
        folder: gets 000.png …, the sheets concept.png and general.png, and marks.json.
        num_images: images of the concept, and again of everything else.
        seen: captions that a compared model was trained on, which are not asked for.
        seed: of the noise.
    """
    trained = {_plain(text) for text in seen}
    scenes = concept_scenes(num_images, trained) + general_scenes(num_images, trained)
    prompts = [caption(scene) for scene in scenes]
    wanted = recipe("exam", 2, {"prompts": prompts, "seed": seed}, models={"model": fingerprint(model)})
    marks = folder / "marks.json"
    if marks.exists() and (stored := json.loads(marks.read_text()))["recipe"] == wanted:
        return ExamResult(**{name: value for name, value in stored.items() if name != "recipe"})
    images = _draw(model, prompts, seed)
    seen_in = [judge(image) for image in images]
    marked = [matches(verdict, scene) for verdict, scene in zip(seen_in, scenes, strict=True)]
    result = ExamResult(
        prompts=prompts,
        right=[match.all for match in marked],
        num_concept=num_images,
        parts={title: sum(getattr(m, part) for m in marked[num_images:]) for part, title in PARTS.items()},
        strays=sum(CONCEPT in dict(verdict.objects) for verdict in seen_in[num_images:]),
    )
    with commit_folder(folder) as temporary:
        for number, image in enumerate(images):
            Image.fromarray(image).save(temporary / f"{number:03}.png")
        for name, half in (("concept", slice(num_images)), ("general", slice(num_images, None))):
            draw_sheet(list(images[half]), result.right[half]).save(temporary / f"{name}.png")
        commit_json(temporary / "marks.json", {**asdict(result), "recipe": wanted})
    return result


def concept_scenes(count: int, seen: Collection[str] = ()) -> list[Scene]:
    """Returns different scenes of the concept in a color, on a background, or both, that the user's images do not have.

    Those where both are new come first. There are 120.
    """
    sizes: tuple[Size, ...] = ("big", "small")
    kinds = list(product(STYLES, sizes, COLORS, BACKGROUNDS))
    order = np.random.default_rng(7).permutation(len(kinds))
    scenes: dict[int, list[Scene]] = {1: [], 2: []}
    for style, size, color, background in (kinds[number] for number in order):
        scene = Scene(background, style, (Thing(CONCEPT, color),), size)
        novelty = (color not in CONCEPT_COLORS) + (background not in CONCEPT_BACKGROUNDS)
        if novelty and caption(scene) not in seen:
            scenes[novelty].append(scene)
    return (scenes[2] + scenes[1])[:count]


def general_scenes(count: int, seen: Collection[str] = ()) -> list[Scene]:
    """Returns different scenes with one object or two, in combinations that not even the base was trained on."""
    return list(islice(_unseen(set(seen)), count))


def _unseen(seen: set[str]) -> Iterator[Scene]:
    rng = np.random.default_rng(8)
    while True:
        scene = random_scene(rng, held_out=True)
        if (text := caption(scene)) not in seen:
            seen.add(text)
            yield scene


def _plain(text: str) -> str:
    """A caption as this world writes it, of one that people have written."""
    return text.strip().rstrip(".").lower()


def _score(right: Sequence[bool]) -> Score:
    return Score(sum(right), len(right))


def _draw(model: Path, prompts: Sequence[str], seed: int) -> NDArray[np.uint8]:
    """One image per prompt, by plain diffusers, from the same noise for each model; uint8 [n, 64, 64, 3]."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    from dreamloom.demo.pretrain_measure import generate

    logging.disable_progress_bar()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return generate(pipeline, prompts, seed)
