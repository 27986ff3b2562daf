"""What models said of an image before, and whether it still holds: so that none is asked again what it has answered.

An image's candidates hang on the image, on what the captioning model is asked, and on the CLIP that ranks them. A
row's recipe has a half for each of the two models, so that another CLIP, or none, asks the captioning model nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dreamloom.base.clip_config import clip_models
from dreamloom.base.files import fingerprint
from dreamloom.base.stage import recipe, recipe_values
from dreamloom.caption.config import GENERATION, RANKING, CaptionConfig
from dreamloom.caption.ranking import Candidate, Row
from dreamloom.scrape.collection import CaptionKind

WORDS_VERSION = 1
"""Raised when the code of the models starts to find other candidates."""


@dataclass(frozen=True)
class Asked:
    """What models are asked about the images of a source: recipes, empty where a model is not asked."""

    blip: str
    clip: str

    def of(self, row: Row) -> str:
        """The recipe of the candidates of an image."""
        picture = {name: row[name] for name in ("key", "sha256", "width", "height", "bytes")}
        texts = {name: row[name] for name in ("text", "text_kind")}
        said = recipe(self.blip, 1, picture) if self.blip else ""
        return f"{said}/{recipe(self.clip, 1, picture | texts) if self.clip else ''}"


def asked_of(config: CaptionConfig, source: str) -> Asked:
    """What a config asks models about a source's images. Models count by what is in them, not by where they lie."""
    if source in config.templates:
        templates = {"templates": config.templates[source]}
        return Asked("", recipe("templates", WORDS_VERSION, templates, (), _clip(config)))
    asked = recipe_values(config, GENERATION.name)
    if config.top_p is None:  # nothing is drawn by chance
        asked.pop("seed")
    model = {"blip": fingerprint(config.model)}
    blip = recipe("words", WORDS_VERSION, asked, (), model)
    return Asked(
        blip,
        recipe("ranks", WORDS_VERSION, recipe_values(config, RANKING.name), (), _clip(config)) if config.ranks else "",
    )


def _clip(config: CaptionConfig) -> dict[str, str]:
    return clip_models(config.clip) | {"precision": config.clip.precision}


@dataclass(frozen=True)
class Found:
    """An image's candidates, and the recipe by which they were found."""

    candidates: list[Candidate]
    recipe: str

    def to_row(self) -> dict[str, Any]:
        """As the captions table has it."""
        return {"recipe": self.recipe, "candidates": [one.to_row() for one in self.candidates]}


@dataclass(frozen=True)
class Known:
    """What need not be asked."""

    found: dict[str, Found]
    """Key → candidates that are as they are wanted."""
    said: dict[str, list[Candidate]]
    """Key → what the captioning model said, which is yet to be ranked."""


def known(rows: Iterable[Row], wanted: Mapping[str, str]) -> Known:
    """What of earlier rows (key, candidates, recipe) can be taken over.

    Args:
        wanted: key → the recipe by which its candidates shall be found.
    """
    found: dict[str, Found] = {}
    said: dict[str, list[Candidate]] = {}
    for row in rows:
        key, made = row["key"], row["recipe"]
        if made is None or key not in wanted:
            continue
        candidates = [Candidate.from_row(one) for one in row["candidates"]]
        blip, _, clip = wanted[key].partition("/")
        if made == wanted[key]:
            found[key] = Found(candidates, made)
        elif blip and made.startswith(f"{blip}/"):
            bare = [replace(one, similarity=None) for one in candidates if one.kind == CaptionKind.MODEL]
            if clip:
                said[key] = bare
            else:
                found[key] = Found(bare, wanted[key])
    return Known(found, said)
