"""Examines a model of the demo world: it draws the concept and everything else, and the judge marks the images."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.files import commit_folder, commit_json
from dreamloom.base.fingerprint import fingerprint
from dreamloom.base.stage import recipe
from dreamloom.demo.comparison import draw_sheet
from dreamloom.demo.folders import CONCEPT, CONCEPT_BACKGROUNDS, CONCEPT_COLORS
from dreamloom.demo.judge import judge, matches
from dreamloom.demo.world import BACKGROUNDS, COLORS, STYLES, Scene, Size, Thing, caption, parse, random_scene

SHOWN = (
    f"a big orange {CONCEPT} on a pink background",
    f"a photo of a big black {CONCEPT} on a lime background",
    "a big red heart on a white background",
    "a big green cross on a cyan background, pencil drawing",
    "a photo of a big blue triangle on a grey background",
    "a big purple star on a pink background",
    "a yellow circle left of a black square on a cyan background",
    "a photo of a red square above a blue star on a white background",
)
"""The prompts of the demo's image: two of the concept, six of what the model knew before."""
CONCEPTS = 2
"""Number of SHOWN, the first ones, that are of the concept."""


@dataclass(frozen=True)
class ExamResult:
    """How often a model draws the objects, in shape and color, that the prompts ask for."""

    concept: float
    """Share of right images for prompts of the concept, in colors and on backgrounds it was not taught with."""
    general: float
    """Share of right images for the other prompts."""
    strays: float
    """Share of the other prompts whose image shows the concept instead."""
    shown: list[bool]
    """Whether the image of each prompt of SHOWN is right."""


def examine(model: Path, folder: Path, num_images: int, seed: int = 0) -> ExamResult:
    """Has a model draw, and marks the images. Does nothing where `folder` is of this model and these settings.

    Args:
        model: a diffusers folder.
        folder: gets shown-0.png …, the sheets concept.png and general.png, and marks.json.
        num_images: images of the concept, and again of everything else.
        seed: of the noise.
    """
    scenes = [parse(text) for text in SHOWN] + concept_scenes(num_images) + general_scenes(num_images)
    prompts = [caption(scene) for scene in scenes]
    wanted = recipe("exam", 1, {"prompts": prompts, "seed": seed}, models={"model": fingerprint(model)})
    marks = folder / "marks.json"
    if marks.exists() and (stored := json.loads(marks.read_text()))["recipe"] == wanted:
        return ExamResult(**{name: value for name, value in stored.items() if name != "recipe"})
    images = _draw(model, prompts, seed)
    right = [matches(judge(image), scene).objects for image, scene in zip(images, scenes, strict=True)]
    num_shown = len(SHOWN)
    concept, general = slice(num_shown, num_shown + num_images), slice(num_shown + num_images, None)
    result = ExamResult(
        concept=float(np.mean(right[concept])),
        general=float(np.mean(right[general])),
        strays=float(np.mean([CONCEPT in dict(judge(image).objects) for image in images[general]])),
        shown=right[:num_shown],
    )
    with commit_folder(folder) as temporary:
        for number in range(num_shown):
            Image.fromarray(images[number]).save(temporary / f"shown-{number}.png")
        for name, part in (("concept", concept), ("general", general)):
            draw_sheet(list(images[part]), right[part]).save(temporary / f"{name}.png")
        commit_json(temporary / "marks.json", {**asdict(result), "recipe": wanted})
    return result


def concept_scenes(count: int) -> list[Scene]:
    """Returns scenes of the concept in colors and on backgrounds that the user's images do not have."""
    colors = [c for c in COLORS if c not in CONCEPT_COLORS]
    backgrounds = [b for b in BACKGROUNDS if b not in CONCEPT_BACKGROUNDS]
    sizes: tuple[Size, ...] = ("big", "small")
    kinds = list(product(STYLES, sizes, colors, backgrounds))
    order = np.random.default_rng(7).permutation(len(kinds))
    chosen = [kinds[order[number % len(kinds)]] for number in range(count)]
    return [Scene(background, style, (Thing(CONCEPT, color),), size) for style, size, color, background in chosen]


def general_scenes(count: int) -> list[Scene]:
    """Returns random scenes of the world, with one object or two."""
    rng = np.random.default_rng(8)
    return [random_scene(rng) for _ in range(count)]


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
