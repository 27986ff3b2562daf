"""A score that somebody adds has a column, is computed, can have a threshold, and is traced."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.curate.choose import choose
from dreamloom.curate.config import ChooseConfig, ScoreConfig
from dreamloom.curate.rules import RULES
from dreamloom.curate.rules.threshold import minimum
from dreamloom.curate.score import recipes, score
from dreamloom.curate.scores import SCORES, register_score
from dreamloom.curate.scores.score import image_score
from dreamloom.curate.source import Role, Source
from dreamloom.curate.trace import trace
from dreamloom.scrape.collection import SCHEMAS, Collection, Table


class ToyConfig(ChooseConfig):
    """The config with a threshold on the toy score."""

    min_brightness: float | None = Field(None, description="Minimum brightness.")


@pytest.fixture
def brightness() -> Iterator[None]:
    schema, rule = SCHEMAS[Table.SCORES], minimum("brightness", "too_dark")
    toy = image_score("brightness", pa.float32(), lambda image: float(np.asarray(image).mean()), version=1)
    register_score(toy)
    RULES.insert(0, rule)
    yield
    SCORES.remove(toy)
    RULES.remove(rule)
    SCHEMAS[Table.SCORES] = schema


def test_a_score_that_is_added_is_computed_and_chosen_by(
    make_collection: Callable[..., Collection], tiny_clip: Path, request: pytest.FixtureRequest
) -> None:
    collection, config = (
        make_collection("people", [{"key": f"key{i}"} for i in range(3)]),
        ScoreConfig(model=str(tiny_clip)),
    )
    sources = [Source(collection, Role.GROUND_TRUTH)]
    before = recipes(collection, config)
    request.getfixturevalue("brightness")
    assert recipes(collection, config) != before
    with pytest.raises(UserError, match="min_brightness needs scores"):
        choose(sources, ToyConfig(min_brightness=1))
    score(collection, config)
    values = collection.read(Table.SCORES)["brightness"].to_pylist()
    assert choose(sources, ToyConfig(min_brightness=max(values))).dropped == {"too_dark": 2}
    darkest, brightest = (f"key{values.index(extreme(values))}" for extreme in (min, max))
    lines = dict(trace(collection.root, darkest))
    assert lines["brightness"] == f"{min(values):.3f}"
    assert lines["dropped"] == f"choose: too_dark (brightness {min(values):.3f} < {max(values):g})"
    assert any("brightness ≥" in value for what, value in trace(collection.root, brightest) if what == "passed choose")
