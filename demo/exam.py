"""What a model of the demo world draws right: images of the concept and of everything else, marked by the judge."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.files import commit_folder, commit_json, fingerprint
from dreamloom.base.stage import recipe
from dreamloom.demo.folders import CONCEPT, CONCEPT_BACKGROUNDS, CONCEPT_COLOURS
from dreamloom.demo.judge import judge, matches
from dreamloom.demo.picture import sheet
from dreamloom.demo.world import BACKGROUNDS, COLOURS, STYLES, Scene, Size, Thing, caption, parse, random_scene

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
"""How many of SHOWN are of the concept."""


@dataclass(frozen=True)
class Marks:
    """How many images show the objects, in shape and colour, that their prompts ask for."""

    concept: float
    """Share of the concept's prompts, all on colours and backgrounds that it was not taught with."""
    general: float
    """Share of the other prompts."""
    strays: float
    """Share of the other prompts whose image shows the concept: what it has run over."""
    shown: list[bool]
    """Of each of SHOWN."""


def examine(model: Path, folder: Path, pictures: int, seed: int = 0) -> Marks:
    """Draws and marks; `folder` then holds shown-0.png …, concept.png, general.png (sheets) and marks.json.

    Does nothing where `folder` was made from this model with these settings.

    Args:
        model: a diffusers folder.
        images: of the concept, and again of everything else.
    """
    asked = [parse(text) for text in SHOWN] + concept_scenes(pictures) + general_scenes(pictures)
    prompts = [caption(scene) for scene in asked]
    made = recipe("exam", 1, {"prompts": prompts, "seed": seed}, models={"model": fingerprint(model)})
    marks = folder / "marks.json"
    if marks.exists() and (known := json.loads(marks.read_text()))["recipe"] == made:
        return Marks(**{name: value for name, value in known.items() if name != "recipe"})
    drawn = _draw(model, prompts, seed)
    right = [matches(judge(picture), scene).objects for picture, scene in zip(drawn, asked, strict=True)]
    first = len(SHOWN)
    concept, general = slice(first, first + pictures), slice(first + pictures, None)
    result = Marks(
        concept=float(np.mean(right[concept])),
        general=float(np.mean(right[general])),
        strays=float(np.mean([CONCEPT in dict(judge(picture).objects) for picture in drawn[general]])),
        shown=right[:first],
    )
    with commit_folder(folder) as temporary:
        for place in range(first):
            Image.fromarray(drawn[place]).save(temporary / f"shown-{place}.png")
        for name, part in (("concept", concept), ("general", general)):
            sheet(list(drawn[part]), right[part]).save(temporary / f"{name}.png")
        commit_json(temporary / "marks.json", {**asdict(result), "recipe": made})
    return result


def concept_scenes(count: int) -> list[Scene]:
    """The concept in colours and on backgrounds that the user's images do not show, in all styles and sizes."""
    colours = [c for c in COLOURS if c not in CONCEPT_COLOURS]
    grounds = [b for b in BACKGROUNDS if b not in CONCEPT_BACKGROUNDS]
    sizes: tuple[Size, ...] = ("big", "small")
    kinds = list(product(STYLES, sizes, colours, grounds))
    order = np.random.default_rng(7).permutation(len(kinds))
    chosen = [kinds[order[place % len(kinds)]] for place in range(count)]
    return [Scene(ground, style, (Thing(CONCEPT, colour),), size) for style, size, colour, ground in chosen]


def general_scenes(count: int) -> list[Scene]:
    """Scenes of the world as it comes: one object or two."""
    rng = np.random.default_rng(8)
    return [random_scene(rng) for _ in range(count)]


def _draw(model: Path, prompts: Sequence[str], seed: int) -> NDArray[np.uint8]:
    """One image a prompt with plain diffusers, in the same noise for each model; uint8 [n, 64, 64, 3]."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    from dreamloom.demo.pretrain_measure import generate

    logging.disable_progress_bar()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return generate(pipeline, prompts, seed)
