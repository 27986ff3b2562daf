"""The rules of choose. A new one is a file beside these, its field in ChooseConfig, and a line in this file."""

from collections.abc import Mapping
from typing import Any

from dreamloom.curate.rules.decided import DECIDED
from dreamloom.curate.rules.duplicates import DUPLICATE, NEAR_DUPLICATE
from dreamloom.curate.rules.licence import LICENCE
from dreamloom.curate.rules.rule import Rule
from dreamloom.curate.rules.surplus import SURPLUS
from dreamloom.curate.rules.threshold import minimum
from dreamloom.curate.rules.too_small import TOO_SMALL
from dreamloom.scrape.collection import Choice

RULES: list[Rule] = [
    DECIDED,
    TOO_SMALL,
    LICENCE,
    minimum("aesthetic", Choice.LOW_AESTHETIC),
    minimum("similarity", Choice.LOW_SIMILARITY),
    DUPLICATE,
    NEAR_DUPLICATE,
    SURPLUS,
]
"""In order: each sees only what those before it kept, and the first that an image breaks is its choice."""


def explain_choice(config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Returns the rules that a kept image passed, in words.

    Args:
        config: the config of choose, as the metadata of the part has it.
        row: the image's record and scores.
    """
    sentences = (rule.explain(config, row) for rule in RULES if rule.is_on(config))
    return [sentence for sentence in sentences if sentence is not None]
