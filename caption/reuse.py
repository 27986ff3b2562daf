"""Reuses candidates that were found before, so that no model is asked again what it has answered.

An image's candidates depend on its content, on the settings of the captioning model, and on the CLIP that ranks them,
not on the file or source that it came from. The recipe of a row has a half for each of the two models, so that another
CLIP, or none, does not ask the captioning model again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.models.clip_config import clip_models
from dreamloom.base.stage import recipe, recipe_values
from dreamloom.caption.config import GENERATION, RANKING, CaptionConfig
from dreamloom.caption.ranking import Candidate
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.collection.known_rows import first_half
from dreamloom.scrape.collection.schema import Row

CANDIDATES_VERSION = 2
"""Raised when the code of the models finds other candidates."""


@dataclass(frozen=True)
class CandidateRecipes:
    """The recipes by which the candidates of a source's images are found; empty for a model that is not used."""

    captioner: str
    clip: str
    with_alt_text: bool = False
    """Whether the alt text is a candidate, too."""

    def for_image(self, record: Row) -> str:
        """Returns the recipe of an image's candidates: both halves, separated by a slash."""
        texts = {name: record[name] for name in ("text", "text_kind")}
        if record["image_sha256"]:
            image = {"image_sha256": record["image_sha256"]}
            texts = texts if self.with_alt_text and record["text_kind"] == CaptionKind.ALT else {}
        else:  # a record of an older release
            image = {name: record[name] for name in ("key", "sha256", "width", "height", "bytes")}
        generation = recipe(self.captioner, 1, image) if self.captioner else ""
        return f"{generation}/{recipe(self.clip, 1, image | texts) if self.clip else ''}"


def candidate_recipes(config: CaptionConfig, source: str) -> CandidateRecipes:
    """Returns the recipes of a source's candidates. Models count by their content, not by their path."""
    if source in config.templates:
        templates = {"templates": config.templates[source]}
        return CandidateRecipes("", recipe("templates", CANDIDATES_VERSION, templates, (), _clip(config)))
    settings = recipe_values(config, GENERATION.name)
    if config.top_p is None:  # nothing is sampled
        settings.pop("seed")
    model = {"blip": fingerprint(config.model)}
    generation = recipe("words", CANDIDATES_VERSION, settings, (), model)
    if not config.ranks:
        return CandidateRecipes(generation, "")
    ranking = recipe("ranks", CANDIDATES_VERSION, recipe_values(config, RANKING.name), (), _clip(config))
    return CandidateRecipes(generation, ranking, config.keep_alt_text_if_better)


def _clip(config: CaptionConfig) -> dict[str, str]:
    return clip_models(config.clip) | {"precision": config.clip.precision}


@dataclass(frozen=True)
class CandidateSet:
    """An image's candidates, and the recipe by which they were found."""

    candidates: list[Candidate]
    recipe: str

    def to_row(self) -> dict[str, Any]:
        """Returns it as the captions table has it."""
        return {"recipe": self.recipe, "candidates": [candidate.to_row() for candidate in self.candidates]}


@dataclass(frozen=True)
class Reusable:
    """Candidates that were found before."""

    complete: dict[str, CandidateSet]
    """Key → candidates that are as the config wants them."""
    unranked: dict[str, list[Candidate]]
    """Key → what the captioning model generated; CLIP has yet to rank it."""


def find_reusable(rows: Iterable[Row], recipes: Mapping[str, str]) -> Reusable:
    """Returns which of the candidates in earlier rows can be reused.

    Args:
        rows: Candidates and recipe of each; of rows with the same recipe the last counts.
        recipes: Key → the recipe by which its candidates are wanted.
    """
    found = {row["recipe"]: row["candidates"] for row in rows if row["recipe"] is not None}
    by_half = {first_half(recipe): candidates for recipe, candidates in found.items()}
    complete: dict[str, CandidateSet] = {}
    unranked: dict[str, list[Candidate]] = {}
    for key, wanted in recipes.items():
        generation, _, ranking = wanted.partition("/")
        if wanted in found:
            complete[key] = CandidateSet(list(map(Candidate.from_row, found[wanted])), wanted)
        elif generation and generation in by_half:
            candidates = map(Candidate.from_row, by_half[generation])
            generated = [replace(c, similarity=None) for c in candidates if c.kind == CaptionKind.MODEL]
            if ranking:
                unranked[key] = generated
            else:
                complete[key] = CandidateSet(generated, wanted)
    return Reusable(complete, unranked)
